#include "cellfleet/moments.h"

#include <cmath>
#include <limits>
#include <stdexcept>

namespace cellfleet {
namespace {

template <class T>
Moments exact_moments(View<const T> pixels) {
  const std::uint64_t n = pixels.size();
  if (n == 0) throw std::invalid_argument("an image without pixels has no moments");
  // Up to here the sum of the squares of 16-bit values fits into 64 bits.
  if (n > std::numeric_limits<std::uint32_t>::max()) throw std::invalid_argument("more than 2^32 - 1 pixels");
  std::uint64_t sum = 0;
  std::uint64_t squares = 0;
  for (std::size_t y = 0; y < pixels.height; ++y) {
    const T* row = pixels.row(y);
    std::uint64_t row_sum = 0;
    std::uint64_t row_squares = 0;
    for (std::size_t x = 0; x < pixels.width; ++x) {
      const std::uint64_t v = row[x];
      row_sum += v;
      row_squares += v * v;
    }
    sum += row_sum;
    squares += row_squares;
  }
  const double mean = static_cast<double>(sum) / static_cast<double>(n);
  // Squares around an integer near the mean are exact (modulo 2^64, and the result fits), so nothing cancels.
  const std::uint64_t centre = sum / n;
  const std::uint64_t around = squares - 2 * centre * sum + n * centre * centre;
  const double offset = mean - static_cast<double>(centre);
  const double variance = static_cast<double>(around) / static_cast<double>(n) - offset * offset;
  return {mean, std::sqrt(variance > 0.0 ? variance : 0.0)};
}

}  // namespace

Moments moments(View<const std::uint8_t> pixels) { return exact_moments(pixels); }
Moments moments(View<const std::uint16_t> pixels) { return exact_moments(pixels); }

}  // namespace cellfleet
