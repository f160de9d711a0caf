#include "cellfleet/resample.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "check.h"

using cellfleet::View;

namespace {

template <class T>
std::vector<T> resampled(const std::vector<T>& in, std::size_t h, std::size_t w, std::size_t oh, std::size_t ow) {
  std::vector<T> out(oh * ow);
  cellfleet::resample(View<const T>{in.data(), h, w}, View<T>{out.data(), oh, ow});
  return out;
}

}  // namespace

int main() {
  // A constant stays constant on every grid, up to the greatest value.
  for (const std::size_t side : {1U, 2U, 3U, 7U, 50U}) {
    const auto a = resampled<std::uint16_t>(std::vector<std::uint16_t>(35, 65'535), 5, 7, side, side);
    CHECK(std::ranges::all_of(a, [](std::uint16_t v) { return v == 65'535; }));
    const auto b = resampled<std::uint8_t>(std::vector<std::uint8_t>(35, 255), 5, 7, side, side);
    CHECK(std::ranges::all_of(b, [](std::uint8_t v) { return v == 255; }));
  }
  const std::vector<std::uint8_t> ramp = {0, 10, 20, 30};
  CHECK(resampled(ramp, 1, 4, 1, 4) == ramp);
  // Half the size: weights 1 3 3 1 over the four nearest, cut at the border.
  CHECK((resampled(ramp, 1, 4, 1, 2) == std::vector<std::uint8_t>{7, 23}));
  CHECK((resampled(std::vector<std::uint8_t>{0, 100}, 1, 2, 1, 4) == std::vector<std::uint8_t>{0, 25, 75, 100}));
  // Between the two steps 8-bit values have 8 bits more; with fewer this would be 150.
  CHECK(
      (resampled(std::vector<std::uint8_t>{221, 40, 181, 195, 197, 94}, 2, 3, 1, 1) == std::vector<std::uint8_t>{149}));
  CHECK_THROWS(resampled(ramp, 1, 4, 0, 4), std::invalid_argument);
  return 0;
}
