#include "cellfleet/measure.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace cellfleet {
namespace {

// Sums of one object; positions are taken relative to its first pixel, so that the sums stay small and exact.
struct Sums {
  std::uint64_t n = 0;
  std::int64_t y0 = 0, x0 = 0;
  std::int64_t y = 0, x = 0;
  std::int64_t yy = 0, xx = 0, xy = 0;
  std::int64_t top = 0, bottom = 0, left = 0, right = 0;
  std::uint64_t intensity = 0;
  std::uint64_t probability = 0;

  void add(std::int64_t at_y, std::int64_t at_x, std::uint64_t value, std::uint64_t p) {
    if (n == 0) {
      y0 = top = bottom = at_y;
      x0 = left = right = at_x;
    }
    ++n;
    const std::int64_t dy = at_y - y0;
    const std::int64_t dx = at_x - x0;
    y += dy;
    x += dx;
    yy += dy * dy;
    xx += dx * dx;
    xy += dx * dy;
    bottom = at_y;
    left = std::min(left, at_x);
    right = std::max(right, at_x);
    intensity += value;
    probability += p;
  }
};

double eccentricity_of(const Sums& s) {
  const auto n = static_cast<double>(s.n);
  const double my = static_cast<double>(s.y) / n;
  const double mx = static_cast<double>(s.x) / n;
  // Central second moments of squares of side 1: each adds 1/12.
  const double a = static_cast<double>(s.yy) / n - my * my + 1.0 / 12.0;
  const double c = static_cast<double>(s.xx) / n - mx * mx + 1.0 / 12.0;
  const double b = static_cast<double>(s.xy) / n - mx * my;
  const double root = std::sqrt((a - c) * (a - c) + 4.0 * b * b);
  const double major = (a + c + root) / 2.0;
  const double minor = (a + c - root) / 2.0;
  return std::sqrt(std::clamp(1.0 - minor / major, 0.0, 1.0));
}

Measurements columns_of(const std::vector<Sums>& all) {
  Measurements m;
  for (std::size_t i = 1; i < all.size(); ++i) {
    const Sums& s = all[i];
    if (s.n == 0) throw std::invalid_argument("a label below the count has no pixels");
    const auto n = static_cast<double>(s.n);
    m.area_px.push_back(s.n);
    m.centroid_y.push_back(static_cast<double>(s.y0) + static_cast<double>(s.y) / n);
    m.centroid_x.push_back(static_cast<double>(s.x0) + static_cast<double>(s.x) / n);
    m.bbox_y0.push_back(s.top);
    m.bbox_x0.push_back(s.left);
    m.bbox_y1.push_back(s.bottom + 1);
    m.bbox_x1.push_back(s.right + 1);
    m.eccentricity.push_back(eccentricity_of(s));
    m.mean_intensity.push_back(static_cast<double>(s.intensity) / n);
    m.mean_probability.push_back(static_cast<double>(s.probability) / n / 65535.0);
  }
  return m;
}

template <class T>
Measurements measure_image(View<const std::uint32_t> labels, std::uint32_t count, View<const T> intensity,
                           View<const std::uint16_t> foreground) {
  const bool same = labels.height == intensity.height && labels.width == intensity.width &&
                    labels.height == foreground.height && labels.width == foreground.width;
  if (!same) throw std::invalid_argument("labels, intensity and foreground differ in shape");
  std::vector<Sums> all(std::size_t{count} + 1);
  for (std::size_t y = 0; y < labels.height; ++y) {
    const std::uint32_t* row = labels.row(y);
    const T* values = intensity.row(y);
    const std::uint16_t* p = foreground.row(y);
    for (std::size_t x = 0; x < labels.width; ++x) {
      if (row[x] == 0) continue;
      if (row[x] > count) throw std::invalid_argument("a label is above the count");
      all[row[x]].add(static_cast<std::int64_t>(y), static_cast<std::int64_t>(x), values[x], p[x]);
    }
  }
  return columns_of(all);
}

}  // namespace

Measurements measure(View<const std::uint32_t> labels, std::uint32_t count, View<const std::uint8_t> intensity,
                     View<const std::uint16_t> foreground) {
  return measure_image(labels, count, intensity, foreground);
}

Measurements measure(View<const std::uint32_t> labels, std::uint32_t count, View<const std::uint16_t> intensity,
                     View<const std::uint16_t> foreground) {
  return measure_image(labels, count, intensity, foreground);
}

}  // namespace cellfleet
