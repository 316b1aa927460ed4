// Exact n-gram counting for BLEU, self-BLEU and distinct-n, of token ids on the CPU.
//
// Every n-gram gets an exact id by extending an (n-1)-gram: key = (slot of the prefix, next token), both below 2^32.
// An n-gram never leaves the shard of its first token, so shards are independent jobs whose tables stay in cache.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "check.h"

namespace fastgan {
namespace {

constexpr uint64_t kEmpty = ~uint64_t{0};
constexpr uint32_t kNobody = ~uint32_t{0};
constexpr int64_t kOccurrencesPerShard = 4096;  // 2 x 4096 slots x 32 bytes = 256 KiB, inside L2

struct Occurrence {
  uint32_t position;  // of the n-gram's first token
  uint32_t sentence;
  uint32_t slot = 0;     // of the n-gram in the table of its order; 0 for the empty prefix
  uint32_t ordinal = 0;  // how many times the sentence had the n-gram up to here
};

struct Slot {
  uint64_t key = kEmpty;
  uint32_t sentence = kNobody;  // the last one that had the n-gram, and how often so far
  uint32_t count = 0;
  uint32_t largest = 0;  // over the sentences that serve as references, its owner, and the largest of all others
  uint32_t owner = kNobody;
  uint32_t second = 0;
};

class Table {
 public:
  void reset(size_t occurrences) {
    size_t capacity = 16;
    shift_ = 60;
    for (; capacity < 2 * occurrences; capacity *= 2) --shift_;
    slots_.assign(capacity, Slot{});
    used_ = 0;
  }

  uint32_t find(uint32_t prefix, int32_t token) {
    const uint64_t key = uint64_t{prefix} << 32 | static_cast<uint32_t>(token);
    const size_t mask = slots_.size() - 1;
    size_t i = ((key ^ key >> 29) * 0x9E3779B97F4A7C15u) >> shift_;
    while (slots_[i].key != key) {
      if (slots_[i].key == kEmpty) {
        slots_[i].key = key;
        ++used_;
        break;
      }
      i = (i + 1) & mask;
    }
    return static_cast<uint32_t>(i);
  }

  Slot& operator[](uint32_t i) { return slots_[i]; }
  int64_t used() const { return used_; }

 private:
  std::vector<Slot> slots_;
  int shift_ = 60;
  int64_t used_ = 0;
};

struct Corpus {
  const int32_t* tokens;
  const int64_t* offsets;
  uint32_t sentences;

  bool fits(const Occurrence& o, int n) const { return o.position + n <= offsets[o.sentence + 1]; }
};

struct Shards {
  std::vector<Occurrence> occurrences;  // grouped by shard, in sentence order within each
  std::vector<size_t> begin;            // [shards + 1]
};

Shards partition(const Corpus& corpus) {
  const int64_t total = corpus.offsets[corpus.sentences];
  int bits = 0;
  while (bits < 12 && (total >> bits) > kOccurrencesPerShard) ++bits;
  const auto shard = [&](int64_t p) { return static_cast<uint64_t>(static_cast<uint32_t>(corpus.tokens[p]) * 0x9E3779B1u) >> (32 - bits); };
  Shards out;
  out.begin.assign((size_t{1} << bits) + 1, 0);
  out.occurrences.resize(total);
  for (int64_t p = 0; p < total; ++p) ++out.begin[shard(p) + 1];
  for (size_t s = 1; s < out.begin.size(); ++s) out.begin[s] += out.begin[s - 1];
  std::vector<size_t> next(out.begin.begin(), out.begin.end() - 1);
  for (uint32_t s = 0; s < corpus.sentences; ++s) {
    for (int64_t p = corpus.offsets[s]; p < corpus.offsets[s + 1]; ++p) { out.occurrences[next[shard(p)]++] = {static_cast<uint32_t>(p), s}; }
  }
  return out;
}

// job(begin, end, table, sums) on each shard's occurrences; every thread owns a table and a row of sums.
template <class Job>
std::vector<int64_t> for_each_shard(Shards& shards, size_t sums, int threads, const Job& job) {
  std::atomic<size_t> next{0};
  std::vector<int64_t> result(sums, 0);
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      Table table;
      std::vector<int32_t> own(sums, 0);
      for (size_t s; (s = next++) + 1 < shards.begin.size();) {
        Occurrence* base = shards.occurrences.data();
        job(base + shards.begin[s], base + shards.begin[s + 1], table, own);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      for (size_t i = 0; i < sums; ++i) result[i] += own[i];
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  const int wanted = std::min<int>(threads, static_cast<int>(shards.begin.size() - 1));
  try {
    while (static_cast<int>(others.size()) < wanted - 1) others.emplace_back(work);
  } catch (const std::system_error&) {  // the machine grants no further thread: the ones there do all the work
  }
  work();
  for (auto& t : others) t.join();
  if (failure) std::rethrow_exception(failure);
  return result;
}

void add_reference(Slot& slot, uint32_t sentence) {
  if (slot.owner == sentence) {
    slot.largest = slot.count;
  } else if (slot.count > slot.largest) {
    slot.second = slot.largest;
    slot.largest = slot.count;
    slot.owner = sentence;
  } else {
    slot.second = std::max(slot.second, slot.count);
  }
}

// sums[h * max_n + n - 1] += the clipped n-gram matches of hypothesis h. `first` = 0: leave one out.
void count_matches(const Corpus& corpus, uint32_t first, int max_n, Occurrence* begin, Occurrence* end, Table& table, std::vector<int32_t>& sums) {
  const bool leave_one_out = first == 0;
  for (int n = 1; n <= max_n && begin != end; ++n) {
    table.reset(end - begin);
    for (Occurrence* o = begin; o != end; ++o) {
      o->slot = table.find(o->slot, corpus.tokens[o->position + n - 1]);
      Slot& slot = table[o->slot];
      slot.count = slot.sentence == o->sentence ? slot.count + 1 : 1;
      slot.sentence = o->sentence;
      o->ordinal = slot.count;
      if (leave_one_out || o->sentence < first) add_reference(slot, o->sentence);
    }
    Occurrence* kept = begin;
    for (Occurrence* o = begin; o != end; ++o) {
      const Slot& slot = table[o->slot];
      // A longer n-gram can match only if this one is both in a hypothesis and in a reference of that hypothesis.
      // Hypotheses come last, so slot.sentence tells whether any of them has it.
      if (leave_one_out ? slot.second == 0 : slot.largest == 0 || slot.sentence < first) continue;
      const uint32_t limit = leave_one_out && slot.owner == o->sentence ? slot.second : slot.largest;
      if (o->sentence >= first && o->ordinal <= limit) ++sums[size_t{o->sentence - first} * max_n + n - 1];
      if (corpus.fits(*o, n + 1)) *kept++ = *o;
    }
    end = kept;
  }
}

void count_distinct(const Corpus& corpus, int max_n, Occurrence* begin, Occurrence* end, Table& table, std::vector<int32_t>& sums) {
  for (int n = 1; n <= max_n && begin != end; ++n) {
    table.reset(end - begin);
    Occurrence* kept = begin;
    for (Occurrence* o = begin; o != end; ++o) {
      o->slot = table.find(o->slot, corpus.tokens[o->position + n - 1]);
      if (corpus.fits(*o, n + 1)) *kept++ = *o;
    }
    sums[n - 1] += static_cast<int32_t>(table.used());
    end = kept;
  }
}

// tokens: int32 [tokens]; offsets: int64 [sentences + 1]
Corpus checked(const Tensor& tokens, const Tensor& offsets, int64_t max_n) {
  using torch::headeronly::ScalarType;
  FASTGAN_CHECK(tokens.scalar_type() == ScalarType::Int && tokens.dim() == 1 && tokens.is_contiguous(), "tokens must be an int32 vector");
  FASTGAN_CHECK(offsets.scalar_type() == ScalarType::Long && offsets.dim() == 1 && offsets.is_contiguous() && offsets.size(0) >= 1,
                "offsets must be an int64 vector of at least one number");
  const int64_t *o = pointer<int64_t>(offsets), sentences = offsets.size(0) - 1;
  FASTGAN_CHECK(o[0] == 0 && o[sentences] == tokens.size(0) && std::is_sorted(o, o + sentences + 1),
                "offsets must rise from 0 to the number of tokens");
  FASTGAN_CHECK(tokens.size(0) < INT32_MAX && sentences < INT32_MAX, "at most 2^31 - 2 tokens and sentences are supported");
  FASTGAN_CHECK(max_n >= 1, "max_n must be at least 1");
  return {pointer<int32_t>(tokens), o, static_cast<uint32_t>(sentences)};
}

int resolve_threads(int64_t threads) { return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

// int64 [hypotheses, max_n]: clipped matches. Sentences before `first` are the references shared by the rest; first = 0: the
// references of each sentence are all the others.
Tensor clipped_matches(Tensor tokens, Tensor offsets, int64_t first, int64_t max_n, int64_t threads) {
  const Corpus corpus = checked(tokens, offsets, max_n);
  FASTGAN_CHECK(first >= 0 && first <= corpus.sentences, "first must be 0 to the number of sentences");
  Tensor out = torch::stable::new_empty(offsets, {corpus.sentences - first, max_n});
  Shards shards = partition(corpus);
  const auto sums = for_each_shard(shards, out.numel(), resolve_threads(threads), [&](auto b, auto e, auto& table, auto& own) {
    count_matches(corpus, static_cast<uint32_t>(first), max_n, b, e, table, own);
  });
  std::copy(sums.begin(), sums.end(), mutable_pointer<int64_t>(out));
  return out;
}

// int64 [max_n]: how many n-grams of each order there are.
Tensor distinct(Tensor tokens, Tensor offsets, int64_t max_n, int64_t threads) {
  const Corpus corpus = checked(tokens, offsets, max_n);
  Tensor out = torch::stable::new_empty(offsets, {max_n});
  Shards shards = partition(corpus);
  const auto sums = for_each_shard(shards, max_n, resolve_threads(threads),
                                   [&](auto b, auto e, auto& table, auto& own) { count_distinct(corpus, max_n, b, e, table, own); });
  std::copy(sums.begin(), sums.end(), mutable_pointer<int64_t>(out));
  return out;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("ngram_matches", TORCH_BOX(&fastgan::clipped_matches));
  m.impl("ngram_distinct", TORCH_BOX(&fastgan::distinct));
}
