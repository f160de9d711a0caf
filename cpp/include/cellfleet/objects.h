// From quantised maps to objects, in integers only; docs/architecture.md states the algorithm and its tie rules.
#pragma once

#include <cstdint>

#include "cellfleet/view.h"

namespace cellfleet {

struct ObjectSettings {
  std::uint16_t foreground;     // least foreground value of a cell pixel
  std::uint16_t seed;           // least smoothed distance value of a seed pixel
  unsigned smooth_passes;       // times that the distance map is smoothed
  std::uint64_t min_seed_area;  // smaller seeds are dropped, in pixels
  std::uint64_t min_area;       // smaller objects are dropped, in pixels
};

// Cuts objects. `distance` is scratch and holds nothing of use afterwards. `labels` becomes 0 (background) or 1..n in
// the raster order of the objects' first pixels; n is returned. Beside the three maps it takes memory for the frontier
// of the growth and for provisional seeds only. Throws std::invalid_argument for unequal shapes, no pixels, or 2^32 - 1
// or more.
std::uint32_t cut_objects(View<const std::uint16_t> foreground, View<std::uint16_t> distance,
                          const ObjectSettings& settings, View<std::uint32_t> labels);

// The steps, each testable alone.
namespace steps {

// One pass of (1 2 1) x (1 2 1) / 16 with replicated edges, (sum + 8) >> 4, in place.
void smooth(View<std::uint16_t> map);

// 8-connected components of foreground >= f && distance >= s with at least min_area pixels, numbered in raster order.
std::uint32_t find_seeds(View<const std::uint16_t> foreground, View<const std::uint16_t> distance,
                         const ObjectSettings& settings, View<std::uint32_t> labels);

// Gives every foreground pixel to the seed with the shortest path (5 straight, 7 diagonal), the lowest number on ties.
void grow(View<const std::uint16_t> foreground, std::uint16_t threshold, View<std::uint16_t> scratch,
          View<std::uint32_t> labels);

// Objects below min_area become background (the numbers that are left have gaps).
void drop_small(std::uint64_t min_area, std::uint32_t count, View<std::uint32_t> labels);

// Background that one object encloses becomes part of it.
void fill_holes(View<std::uint16_t> scratch, View<std::uint32_t> labels);

// Numbers 1..n in the raster order of first pixels; returns n.
std::uint32_t renumber(std::uint32_t count, View<std::uint32_t> labels);

}  // namespace steps
}  // namespace cellfleet
