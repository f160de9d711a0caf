// Resampling to another grid: separable triangle filter, antialiased, in fixed-point arithmetic.
#pragma once

#include <cstdint>

#include "cellfleet/view.h"

namespace cellfleet {

// Pixel i of the output is centred at (i + 0.5) * in / out of the input, per axis. The filter is a triangle of
// half-width max(1, in / out) input pixels, cut at the borders; its weights are integers that sum to 2^15 exactly (what
// rounding leaves over goes to the largest weight, the first of several). Columns first, into 16 bits (8-bit values
// times 256), then rows; each step rounds half up once. Equal sizes copy. Throws std::invalid_argument when a side is
// zero.
void resample(View<const std::uint8_t> in, View<std::uint8_t> out);
void resample(View<const std::uint16_t> in, View<std::uint16_t> out);

}  // namespace cellfleet
