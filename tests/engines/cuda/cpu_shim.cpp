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
  bool begun;
  At at;
};

struct Block {
  char* shared;
  bool begun;
  At at;
};

std::vector<Thread> threads;  // of all blocks of the cluster
std::vector<Block> blocks;
jmp_buf scheduler;
unsigned current;
bool beyond;  // whether a block looked into one that has not begun or is over
void (*body)(void**);
void** given;

void entry() {
  body(given);
  wait(At::end);
}

// Run a thread to its next barrier or its end. setcontext asks the system for a signal mask, which
// takes long, so it is used for the first stretch alone. Not inlined: setjmp spoils local variables.
__attribute__((noinline)) void resume(unsigned index) {
  current = index;
  if (_setjmp(scheduler)) return;
  Thread& thread = threads[index];
  if (thread.begun) _longjmp(thread.here, 1);
  thread.begun = true;
  setcontext(&thread.start);
}

// Run all threads of a block to a barrier; false if it is not the same one, or the end of some.
bool advance(unsigned number, const std::vector<unsigned>& order) {
  const unsigned count = order.size();
  block_idx.x = block_idx.x / blocks.size() * blocks.size() + number;
  shared = blocks[number].shared;
  blocks[number].begun = true;
  for (unsigned i : order) {
    thread_idx = dim3{i, 0, 0};
    resume(number * count + i);
  }
  const At at = blocks[number].at = threads[number * count].at;
  for (unsigned i = 0; i < count; ++i)
    if (threads[number * count + i].at != at) return false;
  return true;
}

bool all_at(At at) {
  return std::all_of(blocks.begin(), blocks.end(), [=](const Block& block) { return block.at == at; });
}

// Run the blocks of a cluster to their end: one after another, each as far as it comes, or in turns.
bool run(std::vector<unsigned>& order, std::mt19937* random) {
  while (!all_at(At::end)) {
    if (all_at(At::cluster_barrier))
      for (Block& block : blocks) block.at = At::block_barrier;
    std::vector<unsigned> ready;
    for (unsigned b = 0; b < blocks.size(); ++b)
      if (blocks[b].at == At::block_barrier) ready.push_back(b);
    if (ready.empty()) return false;  // some ended and others wait for them
    if (random) std::shuffle(order.begin(), order.end(), *random);
    if (!advance(ready[random ? (*random)() % ready.size() : 0], order)) return false;
  }
  return !beyond;
}

}  // namespace

__attribute__((noinline)) void wait(At at) {
  threads[current].at = at;
  if (!_setjmp(threads[current].here)) _longjmp(scheduler, 1);
}

int cluster_rank() { return block_idx.x % blocks.size(); }

float* cluster_map(float* own, int rank) {
  const Block& other = blocks[rank];
  beyond |= !other.begun || other.at == At::end;
  return reinterpret_cast<float*>(other.shared + (reinterpret_cast<char*>(own) - shared));
}

bool launch(unsigned grid, unsigned count, unsigned cluster, size_t shared_bytes, unsigned seed,
            void (*kernel)(void**), void** arguments) {
  if (grid % cluster) return false;
  std::mt19937 random(seed);
  grid_dim = dim3{grid, 1, 1};
  block_dim = dim3{count, 1, 1};
  body = kernel;
  given = arguments;
  beyond = false;
  threads.resize(count * cluster);
  blocks.resize(cluster);
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  bool whole = true;
  for (unsigned first = 0; first < grid && whole; first += cluster) {
    block_idx = dim3{first, 0, 0};
    for (Block& block : blocks) {
      block.shared = static_cast<char*>(std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16));
      std::fill_n(reinterpret_cast<float*>(block.shared), shared_bytes / 4, NAN);
      block.begun = false;
      block.at = At::block_barrier;
    }
    for (Thread& thread : threads) {
      thread.begun = false;
      getcontext(&thread.start);
      thread.start.uc_stack.ss_sp = thread.stack.data();
      thread.start.uc_stack.ss_size = thread.stack.size();
      makecontext(&thread.start, entry, 0);
    }
    whole = run(order, seed ? &random : nullptr);
    for (Block& block : blocks) std::free(block.shared);
  }
  return whole;
}

}  // namespace sim
