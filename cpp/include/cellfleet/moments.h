// Mean and standard deviation of a frame from exact integer sums: the same on every machine.
#pragma once

#include <cstdint>

#include "cellfleet/view.h"

namespace cellfleet {

struct Moments {
  double mean;
  double std;  // population standard deviation
};

// At least one pixel; throws std::invalid_argument otherwise, or when there are more than 2^32 - 1 pixels.
Moments moments(View<const std::uint8_t> pixels);
Moments moments(View<const std::uint16_t> pixels);

}  // namespace cellfleet
