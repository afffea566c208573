// operator new as the tests want it: what memory's end does to a server is seen without ending the machine's.

#include <cstdlib>
#include <new>

#include "tests/server/http_client.h"

namespace gov::test {
std::atomic<std::size_t> largest_allocation{SIZE_MAX};
}

void* operator new(std::size_t size) {
  if (size > gov::test::largest_allocation.load(std::memory_order_relaxed)) throw std::bad_alloc();
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
// The other way in, by which simdjson comes: the pair of a replaced delete must be replaced, too.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (size > gov::test::largest_allocation.load(std::memory_order_relaxed)) return nullptr;
  return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
