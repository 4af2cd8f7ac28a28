// Memory for large results, kept when they are freed.
//
// The C library gives large blocks back to the system when they are freed, and takes them anew,
// page by page, at the next call: at 56 x 56 x 64 floats that takes five times as long as the
// packed convolution itself. So blocks of 128 KiB to 32 MiB, up to 64 MiB in all, are kept here for
// the next result of about their size.
#pragma once
#include <cstddef>

namespace lowbit {

bool is_pooled(size_t bytes);
// 64-byte aligned. Throws std::bad_alloc.
void* take(size_t bytes);
// `bytes` as when it was taken. From any thread.
void give_back(void* memory, size_t bytes);

}  // namespace lowbit
