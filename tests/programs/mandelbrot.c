/* SIMD: the Mandelbrot set, two points at a time. argv[1]: width and height of the picture. Built with -msimd128. */
#include <wasm_simd128.h>
#include "workload.h"

enum { STEPS = 50 };

/* After how many steps each of two points is further than 2 from the origin; STEPS if it never is. */
static v128_t escape(v128_t cr, v128_t ci)
{
    v128_t zr = wasm_f64x2_const_splat(0), zi = zr, rr = zr, ii = zr, near = wasm_i64x2_const_splat(-1);
    v128_t steps = wasm_i64x2_const_splat(0), four = wasm_f64x2_const_splat(4);
    for (int step = 0; step < STEPS; step++) {
        v128_t product = wasm_f64x2_mul(zr, zi);
        zi = wasm_f64x2_add(wasm_f64x2_add(product, product), ci);
        zr = wasm_f64x2_add(wasm_f64x2_sub(rr, ii), cr);
        rr = wasm_f64x2_mul(zr, zr);
        ii = wasm_f64x2_mul(zi, zi);
        near = wasm_v128_and(near, wasm_f64x2_le(wasm_f64x2_add(rr, ii), four));
        if (!wasm_v128_any_true(near))
            break;
        /* A true lane is -1. */
        steps = wasm_i64x2_sub(steps, near);
    }
    return steps;
}

int main(int argc, char **argv)
{
    unsigned long size = workload(argc, argv, 6400);
    unsigned long inside = 0, total = 0;
    uint32_t sum = FNV_START;
    double scale = 2.0 / (double)size;
    for (unsigned long y = 0; y < size; y++) {
        v128_t ci = wasm_f64x2_splat((double)y * scale - 1);
        for (unsigned long x = 0; x < size; x += 2) {
            v128_t cr = wasm_f64x2_make((double)x * scale - 1.5, (double)(x + 1) * scale - 1.5);
            v128_t steps = escape(cr, ci);
            uint8_t both[2] = { (uint8_t)wasm_i64x2_extract_lane(steps, 0), (uint8_t)wasm_i64x2_extract_lane(steps, 1) };
            /* The last column of an odd width stands alone. */
            size_t count = x + 1 < size ? 2 : 1;
            for (size_t i = 0; i < count; i++) {
                inside += both[i] == STEPS;
                total += both[i];
            }
            sum = fnv(sum, both, count);
        }
    }
    printf("%lu x %lu: %lu inside, %lu steps, %08x\n", size, size, inside, total, (unsigned)sum);
    return 0;
}
