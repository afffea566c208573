#include "tests/io/allocation_peak.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::size_t> g_held{0}, g_peak{0};
std::size_t g_start = 0;

void* take_or_null(std::size_t bytes) noexcept {
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (!memory) return nullptr;
  const std::size_t held = g_held += ::malloc_usable_size(memory);
  std::size_t peak = g_peak;
  while (held > peak && !g_peak.compare_exchange_weak(peak, held)) {
  }
  return memory;
}

void* take(std::size_t bytes) {
  void* memory = take_or_null(bytes);
  if (!memory) throw std::bad_alloc();
  return memory;
}

void give(void* memory) {
  if (!memory) return;
  g_held -= ::malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

// All forms that other libraries may call, so that each block comes from and goes back to the same place.
void* operator new(std::size_t bytes) { return take(bytes); }
void* operator new[](std::size_t bytes) { return take(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return take_or_null(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return take_or_null(bytes); }
void operator delete(void* memory) noexcept { give(memory); }
void operator delete[](void* memory) noexcept { give(memory); }
void operator delete(void* memory, std::size_t) noexcept { give(memory); }
void operator delete[](void* memory, std::size_t) noexcept { give(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { give(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { give(memory); }

namespace gov::test {

void start_allocation_peak() {
  g_start = g_held;
  g_peak = g_start;
}

std::size_t allocation_peak() { return g_peak - g_start; }

}  // namespace gov::test
