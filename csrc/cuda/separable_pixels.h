// channels_last for filtered_lrelu_mma.cu and upfirdn2d_separable.cu: how 8 channels of x and y pass between memory, where they lie side by side, and the planes of
// a block's 8 warps.
//
// A thread takes two pixels of a row of x at a time, by asynchronous copies to places of its own, and turns them into words of two columns
// of each channel once they are there. Rows of y go the other way.
#pragma once

#include "cuda/mma.h"

namespace fastgan::separable {

constexpr int kOctet = 8, kOctetThreads = 32 * kOctet;  // channels of a block, a warp each
constexpr int kPair = 2 * kOctetThreads * 16;  // bytes from a thread's pair of pixels to its next one; halfway is the second pixel

// Two pixels of 8 channels as words of two columns, of the even channels and of the odd ones, or the reverse.
__device__ __forceinline__ void turn(Pack<unsigned, 4>& first, Pack<unsigned, 4>& second) {
  FASTGAN_UNROLL
  for (int i = 0; i < 4; ++i) {
    const unsigned low = first.at[i], high = second.at[i];
    first.at[i] = __byte_perm(low, high, 0x5410), second.at[i] = __byte_perm(low, high, 0x7632);
  }
}

// Whether pixels are whole octets, aligned.
inline bool whole_pixels(const Tensor& t) {
  for (int64_t n : {t.size(1), t.stride(0), t.stride(2), t.stride(3)})
    if (n % kOctet) return false;
  return aligned(t.const_data_ptr());
}

template <class S>
struct alignas(16) Common {  // of the warps of a block
  const S* from;
  S* to;
  int channels;  // that there are
};

// A thread's pairs of kRows rows. Of a warp's lanes 4 lie on the columns of a row.
template <class S, int kRows>
struct Pixels {
  static constexpr int kNext = kOctetThreads / kRows;  // pairs on
  const int row = threadIdx.x / 4 % kRows, first = threadIdx.x / (4 * kRows) * 4 + threadIdx.x % 4;
  int channels;  // of the block's 8 that there are
  bool whole;  // pixels are aligned words of 16 bytes

  // Starts to copy from column `column` of this thread's row on, `from` its first pixel; zeros outside.
  __device__ __forceinline__ void fetch(const S* from, int64_t pixel, int column, int columns, bool inside, int pairs, unsigned char* own) const {
    from += 2 * first * pixel, column += 2 * first;
    const auto each = [&](auto&& copy) __attribute__((always_inline)) {
      FASTGAN_NO_UNROLL
      for (int pair = first; pair < pairs; pair += kNext, from += 2 * kNext * pixel, column += 2 * kNext, own += kPair) {
        FASTGAN_UNROLL
        for (int i = 0; i < 2; ++i) copy(own + i * kPair / 2, from + i * pixel, inside && unsigned(column + i) < unsigned(columns));
      }
    };
    if (whole) {
      each([](unsigned char* to, const S* from, bool there) { copy_or_zero<16>(to, from, there); });
    } else {
      each([this](unsigned char* to, const S* from, bool there) {
        Pack<S, kOctet> read;
        FASTGAN_UNROLL
        for (int c = 0; c < kOctet; ++c) read.at[c] = there && c < channels ? from[c] : S(0);
        store(reinterpret_cast<S*>(to), read);
      });
    }
  }

  // The same pairs to this thread's row, `to` of the first plane; planes lie `plane` bytes apart.
  __device__ __forceinline__ void spread(const unsigned char* own, int pairs, unsigned char* to, int plane) const {
    to += first * 4;
    FASTGAN_NO_UNROLL
    for (int pair = first; pair < pairs; pair += kNext, own += kPair, to += kNext * 4) {
      Pack<unsigned, 4> words[2];
      FASTGAN_UNROLL
      for (int i = 0; i < 2; ++i) words[i] = load<unsigned, 4>(reinterpret_cast<const unsigned*>(own + i * kPair / 2));
      turn(words[0], words[1]);
      FASTGAN_UNROLL
      for (int c = 0; c < kOctet; ++c) *reinterpret_cast<unsigned*>(to + c * plane) = words[c % 2].at[c / 2];
    }
  }

  // `columns` columns of this thread's row, `from` of the first plane, to memory.
  __device__ __forceinline__ void gather(const unsigned char* from, int plane, S* to, int64_t pixel, int columns) const {
    from += first * 4, to += 2 * first * pixel;
    const auto each = [&](auto&& put) __attribute__((always_inline)) {
      FASTGAN_NO_UNROLL
      for (int column = 2 * first; column < columns; column += 2 * kNext, from += kNext * 4, to += 2 * kNext * pixel) {
        Pack<unsigned, 4> words[2];
        FASTGAN_UNROLL
        for (int c = 0; c < kOctet; ++c) words[c % 2].at[c / 2] = *reinterpret_cast<const unsigned*>(from + c * plane);
        turn(words[0], words[1]);
        FASTGAN_UNROLL
        for (int i = 0; i < 2; ++i)
          if (column + i < columns) put(to + i * pixel, words[i]);
      }
    };
    if (whole) {
      each([](S* to, const Pack<unsigned, 4>& words) { store(reinterpret_cast<unsigned*>(to), words); });
    } else {
      each([this](S* to, const Pack<unsigned, 4>& words) {
        Pack<S, kOctet> values;
        memcpy(&values, &words, sizeof(values));
        FASTGAN_UNROLL
        for (int c = 0; c < kOctet; ++c)
          if (c < channels) to[c] = values.at[c];
      });
    }
  }
};

}  // namespace fastgan::separable
