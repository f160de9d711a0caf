// Goes from maps to measured objects with the installed headers and library, every topic once.
#include <cellfleet/measure.h>
#include <cellfleet/moments.h>
#include <cellfleet/objects.h>
#include <cellfleet/quantise.h>
#include <cellfleet/resample.h>

#include <cstdint>
#include <cstdio>
#include <vector>

int main() {
  using cellfleet::View;
  const std::vector<float> p = {1.0F, 1.0F, 0.0F, 1.0F};
  std::vector<std::uint16_t> foreground(4), distance(4), halved(2);
  std::vector<std::uint32_t> labels(4);
  cellfleet::quantise({p.data(), 1, 4}, {foreground.data(), 1, 4});
  distance = foreground;
  const View<const std::uint16_t> map{foreground.data(), 1, 4};
  const auto count =
      cellfleet::cut_objects(map, {distance.data(), 1, 4}, {32'768, 32'768, 0, 1, 1}, {labels.data(), 1, 4});
  const auto measured = cellfleet::measure({labels.data(), 1, 4}, count, map, map);
  const auto moments = cellfleet::moments(map);
  cellfleet::resample(map, View<std::uint16_t>{halved.data(), 1, 2});
  const bool right = labels == std::vector<std::uint32_t>{1, 1, 0, 2} && measured.area_px[0] == 2 &&
                     moments.mean == 0.75 * 65'535 && halved[0] > halved[1];
  std::printf("%u objects, %s\n", count, right ? "as expected" : "not as expected");
  return right ? 0 : 1;
}
