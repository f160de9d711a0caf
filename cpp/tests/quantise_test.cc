#include "cellfleet/quantise.h"

#include <limits>
#include <stdexcept>
#include <vector>

#include "check.h"

using cellfleet::View;

int main() {
  const std::vector<float> p = {0.0F, 1.0F, 0.5F, -3.0F, 7.0F, std::numeric_limits<float>::infinity()};
  std::vector<std::uint16_t> q(p.size());
  cellfleet::quantise(View<const float>{p.data(), 1, p.size()}, View<std::uint16_t>{q.data(), 1, q.size()});
  CHECK((q == std::vector<std::uint16_t>{0, 65'535, 32'768, 0, 65'535, 65'535}));

  // Halves go up, where floats still show the difference.
  const std::vector<float> halves = {0.5F / 65535.0F, 1.5F / 65535.0F, 2.5F / 65535.0F};
  cellfleet::quantise(View<const float>{halves.data(), 1, 3}, View<std::uint16_t>{q.data(), 1, 3});
  CHECK(q[0] == 1 && q[1] == 2 && q[2] == 3);

  const std::vector<float> bad = {0.0F, std::numeric_limits<float>::quiet_NaN()};
  CHECK_THROWS(cellfleet::quantise({bad.data(), 1, 2}, View<std::uint16_t>{q.data(), 1, 2}), std::invalid_argument);
  CHECK_THROWS(cellfleet::quantise({p.data(), 1, 2}, View<std::uint16_t>{q.data(), 2, 1}), std::invalid_argument);
  return 0;
}
