// What is measured of every object, in one pass over the labels.
#pragma once

#include <cstdint>
#include <vector>

#include "cellfleet/view.h"

namespace cellfleet {

// Columns with one value per object, object 1 first. Positions are in pixels from the centre of the first pixel.
struct Measurements {
  std::vector<std::uint64_t> area_px;
  std::vector<double> centroid_y;
  std::vector<double> centroid_x;
  std::vector<std::int64_t> bbox_y0;  // half-open: y0 <= y < y1
  std::vector<std::int64_t> bbox_x0;
  std::vector<std::int64_t> bbox_y1;
  std::vector<std::int64_t> bbox_x1;
  std::vector<double> eccentricity;      // of the ellipse with the same second moments; 0 is a circle
  std::vector<double> mean_intensity;    // grey values
  std::vector<double> mean_probability;  // 0..1
};

// Throws std::invalid_argument for unequal shapes, a label above `count`, or a label without pixels.
Measurements measure(View<const std::uint32_t> labels, std::uint32_t count, View<const std::uint8_t> intensity,
                     View<const std::uint16_t> foreground);
Measurements measure(View<const std::uint32_t> labels, std::uint32_t count, View<const std::uint16_t> intensity,
                     View<const std::uint16_t> foreground);

}  // namespace cellfleet
