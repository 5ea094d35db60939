// Files inside the binary: the one way that g++ and clang share on every ELF target, without a tool of our own. The
// assembler reads a file by its path, which no header dependency shows: name it under OBJECT_DEPENDS.
#pragma once

#include <cstddef>
#include <string_view>

/// Outside of all namespaces: defines `std::string_view symbol()`, the bytes of `file` (a string literal), which begin
/// on a border of 64 bytes. `symbol` must be unique in the program.
#define GPTOSS_EMBED_FILE(symbol, file)               \
  asm(".pushsection .rodata\n"                        \
      ".balign 64\n"                                  \
      ".global " #symbol                              \
      "_begin\n"                                      \
      ".hidden " #symbol "_begin\n" #symbol           \
      "_begin:\n"                                     \
      ".incbin \"" file                               \
      "\"\n"                                          \
      ".global " #symbol                              \
      "_end\n"                                        \
      ".hidden " #symbol "_end\n" #symbol             \
      "_end:\n"                                       \
      ".popsection\n");                               \
  extern "C" {                                        \
  extern const char symbol##_begin[], symbol##_end[]; \
  }                                                   \
  static std::string_view symbol() { return {symbol##_begin, static_cast<size_t>(symbol##_end - symbol##_begin)}; }
