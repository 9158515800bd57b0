/* Floating point: the Sun and the four giant planets, symplectic Euler steps of 0.01 days; prints the system's energy
   before and after. argv[1]: steps. Units: au, days, solar masses. */
#include <math.h>
#include "workload.h"

enum { BODIES = 5 };

/* Gravitational constant in these units: the square of Gauss's. */
static const double GRAVITY = 0.01720209895 * 0.01720209895;

struct body {
    double at[3], speed[3], mass;
};

/* Circular orbits in slightly different planes: a simple start, exact to write down. */
static const struct {
    double radius, mass, tilt;
} planets[BODIES - 1] = {
    { 5.2044, 9.547919e-4, 0.02274 },
    { 9.5826, 2.858860e-4, 0.04340 },
    { 19.2184, 4.366244e-5, 0.01348 },
    { 30.1104, 5.151389e-5, 0.03089 },
};

static void place(struct body *bodies)
{
    bodies[0] = (struct body){ .mass = 1 };
    for (int i = 1; i < BODIES; i++) {
        double radius = planets[i - 1].radius, tilt = planets[i - 1].tilt;
        double speed = sqrt(GRAVITY / radius);
        /* Each a quarter turn further, so that they do not start in a row. */
        static const double turn[4][2] = { { 1, 0 }, { 0, 1 }, { -1, 0 }, { 0, -1 } };
        double c = turn[i - 1][0], s = turn[i - 1][1];
        bodies[i] = (struct body){
            .at = { radius * c, radius * s, radius * c * tilt },
            .speed = { -speed * s, speed * c, -speed * s * tilt },
            .mass = planets[i - 1].mass,
        };
        /* The Sun takes the opposite momentum: the whole stays where it is. */
        for (int k = 0; k < 3; k++)
            bodies[0].speed[k] -= bodies[i].speed[k] * bodies[i].mass;
    }
}

static void step(struct body *bodies, double days)
{
    for (int i = 0; i < BODIES; i++)
        for (int j = i + 1; j < BODIES; j++) {
            double d[3], square = 0;
            for (int k = 0; k < 3; k++) {
                d[k] = bodies[i].at[k] - bodies[j].at[k];
                square += d[k] * d[k];
            }
            double pull = GRAVITY * days / (square * sqrt(square));
            for (int k = 0; k < 3; k++) {
                bodies[i].speed[k] -= d[k] * bodies[j].mass * pull;
                bodies[j].speed[k] += d[k] * bodies[i].mass * pull;
            }
        }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            bodies[i].at[k] += bodies[i].speed[k] * days;
}

static double energy(const struct body *bodies)
{
    double sum = 0;
    for (int i = 0; i < BODIES; i++) {
        double square = 0;
        for (int k = 0; k < 3; k++)
            square += bodies[i].speed[k] * bodies[i].speed[k];
        sum += bodies[i].mass * square / 2;
        for (int j = i + 1; j < BODIES; j++) {
            double distance = 0;
            for (int k = 0; k < 3; k++)
                distance += (bodies[i].at[k] - bodies[j].at[k]) * (bodies[i].at[k] - bodies[j].at[k]);
            sum -= GRAVITY * bodies[i].mass * bodies[j].mass / sqrt(distance);
        }
    }
    return sum;
}

int main(int argc, char **argv)
{
    unsigned long steps = workload(argc, argv, 16000000);
    struct body bodies[BODIES];
    place(bodies);
    printf("%.15e\n", energy(bodies));
    for (unsigned long i = 0; i < steps; i++)
        step(bodies, 0.01);
    printf("%.15e\n", energy(bodies));
    return 0;
}
