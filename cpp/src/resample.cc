#include "cellfleet/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace cellfleet {
namespace {

constexpr int kBits = 15;
constexpr std::int64_t kOne = std::int64_t{1} << kBits;

// The input pixels and weights that make one output pixel.
struct Taps {
  std::size_t first;
  std::vector<std::uint32_t> weights;
};

Taps taps_of(std::size_t i, std::size_t in, std::size_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double support = std::max(1.0, scale);
  const double centre = (static_cast<double>(i) + 0.5) * scale;
  const auto last = static_cast<double>(in);
  const auto first = static_cast<std::size_t>(std::clamp(std::floor(centre - support + 0.5), 0.0, last - 1.0));
  const auto end = static_cast<std::size_t>(std::clamp(std::floor(centre + support + 0.5), 1.0, last));
  std::vector<double> exact;
  double total = 0.0;
  for (std::size_t x = first; x < std::max(end, first + 1); ++x) {
    const double w = std::max(0.0, 1.0 - std::abs(static_cast<double>(x) + 0.5 - centre) / support);
    exact.push_back(w);
    total += w;
  }
  std::vector<std::int64_t> whole;
  std::int64_t rest = kOne;
  for (const double w : exact) {
    const auto q = static_cast<std::int64_t>(std::floor(w / total * static_cast<double>(kOne) + 0.5));
    whole.push_back(q);
    rest -= q;
  }
  *std::ranges::max_element(whole) += rest;
  Taps taps{first, {}};
  for (const std::int64_t q : whole) taps.weights.push_back(static_cast<std::uint32_t>(q));
  return taps;
}

std::vector<Taps> all_taps(std::size_t in, std::size_t out) {
  std::vector<Taps> all;
  all.reserve(out);
  for (std::size_t i = 0; i < out; ++i) all.push_back(taps_of(i, in, out));
  return all;
}

// 8-bit values are carried times 256 between the two steps.
template <class T>
constexpr int kCarry = std::is_same_v<T, std::uint8_t> ? 8 : 0;

template <class T>
void resample_columns(const T* in, const std::vector<Taps>& taps, std::uint16_t* out) {
  constexpr int shift = kBits - kCarry<T>;
  for (std::size_t i = 0; i < taps.size(); ++i) {
    std::uint32_t sum = 1U << (shift - 1);
    const T* source = in + taps[i].first;
    for (std::size_t k = 0; k < taps[i].weights.size(); ++k) sum += taps[i].weights[k] * source[k];
    out[i] = static_cast<std::uint16_t>(sum >> shift);
  }
}

template <class T>
void resample_image(View<const T> in, View<T> out) {
  if (in.size() == 0 || out.size() == 0) throw std::invalid_argument("cannot resample an image without pixels");
  if (in.height == out.height && in.width == out.width) {
    std::memcpy(out.data, in.data, in.size() * sizeof(T));
    return;
  }
  const std::vector<Taps> columns = all_taps(in.width, out.width);
  const std::vector<Taps> rows = all_taps(in.height, out.height);
  std::size_t window = 1;
  for (const Taps& t : rows) window = std::max(window, t.weights.size());
  // Input rows whose columns are done; row y lies in slot y % window.
  std::vector<std::uint16_t> ring(window * out.width);
  std::vector<std::uint32_t> sums(out.width);
  constexpr int shift = kBits + kCarry<T>;
  std::size_t done = 0;
  for (std::size_t i = 0; i < out.height; ++i) {
    const Taps& t = rows[i];
    for (done = std::max(done, t.first); done < t.first + t.weights.size(); ++done) {
      resample_columns(in.row(done), columns, ring.data() + (done % window) * out.width);
    }
    std::ranges::fill(sums, 1U << (shift - 1));
    for (std::size_t k = 0; k < t.weights.size(); ++k) {
      const std::uint16_t* source = ring.data() + ((t.first + k) % window) * out.width;
      const std::uint32_t w = t.weights[k];
      for (std::size_t x = 0; x < out.width; ++x) sums[x] += w * source[x];
    }
    T* target = out.row(i);
    constexpr std::uint32_t most = std::numeric_limits<T>::max();
    for (std::size_t x = 0; x < out.width; ++x) target[x] = static_cast<T>(std::min(sums[x] >> shift, most));
  }
}

}  // namespace

void resample(View<const std::uint8_t> in, View<std::uint8_t> out) { resample_image(in, out); }
void resample(View<const std::uint16_t> in, View<std::uint16_t> out) { resample_image(in, out); }

}  // namespace cellfleet
