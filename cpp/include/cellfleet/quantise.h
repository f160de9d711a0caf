// Maps of probabilities to 16-bit integers; from there on all arithmetic is in integers.
#pragma once

#include <cstdint>

#include "cellfleet/view.h"

namespace cellfleet {

// out = floor(p * 65535 + 0.5) in float32, clamped to 0..65535. Throws std::invalid_argument on NaN or unequal shapes.
void quantise(View<const float> p, View<std::uint16_t> out);

}  // namespace cellfleet
