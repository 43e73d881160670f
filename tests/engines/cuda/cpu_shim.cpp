// The scheduler of cpu_shim.h.
#include "cpu_shim.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

namespace sim {

dim3 thread_idx, block_idx, block_dim, grid_dim;
char* shared;

namespace {

struct Thread {
  ucontext_t start;
  jmp_buf here;
  std::vector<char> stack = std::vector<char>(64 << 10);
  bool begun, done;
};

std::vector<Thread> threads;
jmp_buf scheduler;
unsigned current;
void (*body)(void**);
void** given;

void entry() {
  body(given);
  threads[current].done = true;
  yield();
}

// Run a thread to its next barrier or its end. setcontext asks the system for a signal mask, which
// takes long, so it is used for the first stretch alone. Not inlined: setjmp spoils local variables.
__attribute__((noinline)) void resume(unsigned index) {
  current = index;
  thread_idx = dim3{index, 0, 0};
  if (_setjmp(scheduler)) return;
  Thread& thread = threads[index];
  if (thread.begun) _longjmp(thread.here, 1);
  thread.begun = true;
  setcontext(&thread.start);
}

}  // namespace

__attribute__((noinline)) void yield() {
  if (!_setjmp(threads[current].here)) _longjmp(scheduler, 1);
}

bool launch(unsigned blocks, unsigned count, size_t shared_bytes, unsigned seed,
            void (*kernel)(void**), void** arguments) {
  std::mt19937 random(seed);
  grid_dim = dim3{blocks, 1, 1};
  block_dim = dim3{count, 1, 1};
  body = kernel;
  given = arguments;
  threads.resize(count);
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  bool whole = true;
  for (unsigned b = 0; b < blocks && whole; ++b) {
    shared = static_cast<char*>(std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16));
    std::fill_n(reinterpret_cast<float*>(shared), shared_bytes / 4, NAN);
    block_idx = dim3{b, 0, 0};
    for (Thread& thread : threads) {
      thread.begun = thread.done = false;
      getcontext(&thread.start);
      thread.start.uc_stack.ss_sp = thread.stack.data();
      thread.start.uc_stack.ss_size = thread.stack.size();
      makecontext(&thread.start, entry, 0);
    }
    for (unsigned done = 0; done == 0;) {
      if (seed) std::shuffle(order.begin(), order.end(), random);
      for (unsigned i : order) {
        resume(i);
        done += threads[i].done;
      }
      whole = done == 0 || done == count;
    }
    std::free(shared);
  }
  return whole;
}

}  // namespace sim
