#include "cellfleet/objects.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"

using cellfleet::ObjectSettings;
using cellfleet::View;

namespace {

using Labels = std::vector<std::uint32_t>;

// '.' background, '#' foreground, 'S' foreground that is a seed; no smoothing, nothing too small.
Labels cut(const std::vector<std::string>& picture, std::uint64_t min_seed = 1, std::uint64_t min_area = 1) {
  const std::size_t h = picture.size();
  const std::size_t w = picture[0].size();
  std::vector<std::uint16_t> f;
  std::vector<std::uint16_t> d;
  for (const std::string& row : picture) {
    for (const char c : row) {
      f.push_back(c == '.' ? 0 : 1000);
      d.push_back(c == 'S' ? 1000 : 0);
    }
  }
  Labels labels(h * w, 77);
  const ObjectSettings settings{500, 500, 0, min_seed, min_area};
  cellfleet::cut_objects(View<const std::uint16_t>{f.data(), h, w}, View<std::uint16_t>{d.data(), h, w}, settings,
                         View<std::uint32_t>{labels.data(), h, w});
  return labels;
}

Labels filled(Labels labels, std::size_t width) {
  std::vector<std::uint16_t> scratch(labels.size());
  const std::size_t height = labels.size() / width;
  cellfleet::steps::fill_holes(View<std::uint16_t>{scratch.data(), height, width},
                               View<std::uint32_t>{labels.data(), height, width});
  return labels;
}

// A hole is not filled when one of the eight neighbours of its pixels, and be it at a corner, is another object's.
void check_neighbours_of_holes() {
  constexpr std::size_t width = 4;
  const Labels hole = {2, 2, 2, 2, 2, 0, 0, 2, 2, 2, 2, 2};
  CHECK(filled(hole, width) == Labels(hole.size(), 2));
  for (std::size_t i = 0; i < hole.size(); ++i) {
    if (hole[i] == 0) continue;
    Labels touched = hole;
    touched[i] = 1;
    CHECK(filled(touched, width) == touched);
  }
}

// Four steps straight are 20, three diagonal ones 21; three straight are 15, two diagonal ones 14.
void check_lengths_of_steps() {
  CHECK(cut({"S####...", ".....#..", "......#.", ".......S"})[4] == 1);
  CHECK(cut({"S###..", "....#.", ".....S"})[3] == 2);
}

// The least areas themselves are large enough.
void check_least_areas() {
  CHECK((cut({"SS.S"}, 2) == Labels{1, 1, 0, 0}));
  CHECK((cut({"S##.S#"}, 1, 3) == Labels{1, 1, 1, 0, 0, 0}));
  CHECK((cut({"S##.S##"}, 1, 3) == Labels{1, 1, 1, 0, 2, 2, 2}));
}

}  // namespace

int main() {
  check_neighbours_of_holes();
  check_lengths_of_steps();
  check_least_areas();
  // The middle pixel is equally far from both seeds: the lower number takes it.
  CHECK((cut({"S###S"}) == Labels{1, 1, 1, 2, 2}));
  // Paths stay inside the foreground: the right end is nearer to seed 2 in the air, but only seed 1 reaches it.
  CHECK((cut({"S####", "....#", "S..##"}) == Labels{1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 2, 0, 0, 1, 1}));
  // Foreground without a seed is background; seeds and objects that are too small go.
  CHECK((cut({"##.S."}) == Labels{0, 0, 0, 1, 0}));
  CHECK((cut({"S..SS"}, 2) == Labels{0, 0, 0, 1, 1}));
  CHECK((cut({"S#.S."}, 1, 2) == Labels{1, 1, 0, 0, 0}));
  // Seeds join over corners.
  CHECK((cut({"S.S", ".S."}) == Labels{1, 0, 1, 0, 1, 0}));
  // A hole is filled, a bay and a hole between two objects are not.
  CHECK((cut({"S##", "#.#", "###"}) == Labels(9, 1)));
  CHECK((cut({"S##", "#..", "###"}) == Labels{1, 1, 1, 1, 0, 0, 1, 1, 1}));
  CHECK((cut({"S#S", "#.#", "S#S"})[4] == 0));
  CHECK((cut({"."}) == Labels{0}));
  CHECK((cut({"S"}) == Labels{1}));

  std::vector<std::uint16_t> map = {0, 0, 0, 0, 16, 0, 0, 0, 0};
  cellfleet::steps::smooth(View<std::uint16_t>{map.data(), 3, 3});
  CHECK((map == std::vector<std::uint16_t>{1, 2, 1, 2, 4, 2, 1, 2, 1}));
  std::vector<std::uint16_t> halves = {0, 0, 0, 0, 8, 0, 0, 0, 0};  // corners get 8 / 16: rounded up
  cellfleet::steps::smooth(View<std::uint16_t>{halves.data(), 3, 3});
  CHECK((halves == std::vector<std::uint16_t>{1, 1, 1, 1, 2, 1, 1, 1, 1}));
  std::vector<std::uint16_t> most(6, 65'535);
  cellfleet::steps::smooth(View<std::uint16_t>{most.data(), 6, 1});
  CHECK((most == std::vector<std::uint16_t>(6, 65'535)));

  Labels labels(4);
  const ObjectSettings settings{1, 1, 0, 0, 0};
  CHECK_THROWS(
      cellfleet::cut_objects(View<const std::uint16_t>{map.data(), 2, 2}, View<std::uint16_t>{most.data(), 1, 4},
                             settings, View<std::uint32_t>{labels.data(), 2, 2}),
      std::invalid_argument);
  CHECK_THROWS(
      cellfleet::cut_objects(View<const std::uint16_t>{map.data(), 0, 2}, View<std::uint16_t>{most.data(), 0, 2},
                             settings, View<std::uint32_t>{labels.data(), 0, 2}),
      std::invalid_argument);
  return 0;
}
