#include <cstdio>
#include <memory>
#include <vector>

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
};

template <int Sides>
struct Polygon : Shape {
    explicit Polygon(double side) : side(side) {}
    double area() const override { return Sides == 4 ? side * side : side * side * 0.43301270189221932; }
    double side;
};

template <typename Items>
double total(const Items &items) {
    double sum = 0;
    for (const auto &item : items) sum += item->area();
    return sum;
}

int main() {
    std::vector<std::unique_ptr<Shape>> shapes;
    for (int side = 1; side <= 100; side++) {
        if (side % 2) shapes.push_back(std::make_unique<Polygon<3>>(side));
        else shapes.push_back(std::make_unique<Polygon<4>>(side));
    }
    std::printf("%zu shapes, %.6f\n", shapes.size(), total(shapes));
}
