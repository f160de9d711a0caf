#include "cellfleet/moments.h"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "check.h"

using cellfleet::View;

int main() {
  const std::vector<std::uint8_t> bytes = {1, 2, 3, 4};
  const auto m = cellfleet::moments(View<const std::uint8_t>{bytes.data(), 2, 2});
  CHECK(m.mean == 2.5);
  CHECK(std::abs(m.std - std::sqrt(1.25)) < 1e-15);

  // Far from zero, the deviation of one grey value in a million pixels must not drown.
  std::vector<std::uint16_t> flat(1'000'000, 65'535);
  flat[0] = 65'534;
  const auto f = cellfleet::moments(View<const std::uint16_t>{flat.data(), 1000, 1000});
  CHECK(std::abs(f.std - 1e-3) < 1e-9);

  CHECK_THROWS(cellfleet::moments(View<const std::uint8_t>{bytes.data(), 0, 2}), std::invalid_argument);
  return 0;
}
