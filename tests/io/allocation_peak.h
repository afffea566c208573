#pragma once
// Counts what the C++ heap holds, so that a test can bound the memory that a function takes.

#include <cstddef>

namespace gov::test {

void start_allocation_peak();   // the peak restarts from what is held now
std::size_t allocation_peak();  // bytes held at most since then, beyond what was held then

}  // namespace gov::test
