#include "cellfleet/measure.h"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "check.h"

using cellfleet::View;

int main() {
  const std::vector<std::uint32_t> labels = {0, 1, 1, 2, 0, 0};
  const std::vector<std::uint8_t> grey = {9, 10, 20, 30, 9, 9};
  const std::vector<std::uint16_t> p = {0, 65'535, 0, 65'535, 0, 0};
  const View<const std::uint32_t> l{labels.data(), 2, 3};
  const View<const std::uint8_t> g{grey.data(), 2, 3};
  const View<const std::uint16_t> f{p.data(), 2, 3};
  const auto m = cellfleet::measure(l, 2, g, f);
  CHECK((m.area_px == std::vector<std::uint64_t>{2, 1}));
  CHECK(m.centroid_x[0] == 1.5 && m.centroid_y[0] == 0.0 && m.centroid_y[1] == 1.0);
  CHECK(m.bbox_x0[0] == 1 && m.bbox_x1[0] == 3 && m.bbox_y0[0] == 0 && m.bbox_y1[0] == 1);
  CHECK(m.mean_intensity[0] == 15.0 && m.mean_probability[0] == 0.5 && m.mean_probability[1] == 1.0);
  // Two pixels in a row: variances 1/3 and 1/12, so 1 - (1/12) / (1/3) = 3/4.
  CHECK(std::abs(m.eccentricity[0] - std::sqrt(0.75)) < 1e-12);
  CHECK(m.eccentricity[1] == 0.0);
  CHECK_THROWS(cellfleet::measure(l, 1, g, f), std::invalid_argument);
  CHECK_THROWS(cellfleet::measure(l, 3, g, f), std::invalid_argument);
  CHECK_THROWS(cellfleet::measure(l, 2, View<const std::uint8_t>{grey.data(), 3, 2}, f), std::invalid_argument);
  return 0;
}
