// The C++ standard library at work: containers, algorithms, strings and streams, with output that never varies.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
};
struct Square : Shape {
    double side;
    explicit Square(double side) : side(side) {}
    double area() const override { return side * side; }
};
struct Rectangle : Shape {
    double width, height;
    Rectangle(double width, double height) : width(width), height(height) {}
    double area() const override { return width * height; }
};

int main()
{
    std::vector<std::uint32_t> numbers(100000);
    std::uint32_t state = 1;
    for (auto &number : numbers)
        number = state = state * 1664525u + 1013904223u;
    std::sort(numbers.begin(), numbers.end());
    std::cout << "sorted " << std::is_sorted(numbers.begin(), numbers.end()) << ", median "
              << numbers[numbers.size() / 2] << '\n';

    std::istringstream text("the quick brown fox jumps over the lazy dog the end");
    std::map<std::string, int> words;
    for (std::string word; text >> word;)
        ++words[word];
    for (const auto &[word, count] : words)
        std::cout << word << '=' << count << ' ';
    std::cout << '\n';

    std::string letters = "hello, micro vm";
    std::transform(letters.begin(), letters.end(), letters.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; });
    std::cout << letters << ' ' << std::string(letters.rbegin(), letters.rend()) << '\n';

    std::unordered_map<std::uint32_t, std::size_t> buckets;
    for (auto number : numbers)
        ++buckets[number % 1000];
    std::cout << "buckets " << buckets.size() << ", total "
              << std::accumulate(buckets.begin(), buckets.end(), std::size_t{0},
                                 [](std::size_t sum, const auto &bucket) { return sum + bucket.second; })
              << '\n';

    std::vector<std::unique_ptr<Shape>> shapes;
    shapes.push_back(std::make_unique<Square>(3));
    shapes.push_back(std::make_unique<Rectangle>(2, 2.5));
    double area = 0;
    for (const auto &shape : shapes)
        area += shape->area();
    std::set<int> primes;
    for (int n = 2; primes.size() < 10; ++n)
        if (std::none_of(primes.begin(), primes.end(), [n](int prime) { return n % prime == 0; }))
            primes.insert(n);
    std::cout << "area " << area << ", tenth prime " << *primes.rbegin() << std::endl;
}
