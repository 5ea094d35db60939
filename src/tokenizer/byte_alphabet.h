// GPT-2's byte alphabet: each of the 256 bytes written as one printable character, as tokenizer.json and GGUF spell
// tokens. Source: github.com/openai/gpt-2, src/encoder.py, bytes_to_unicode.
#pragma once

#include <string>
#include <string_view>

namespace gptoss {

/// Appends the bytes that `text` spells. False when `text` is not UTF-8 or has a character outside the alphabet.
bool BytesFromAlphabet(std::string_view text, std::string* bytes);

/// Appends the spelling of `bytes`.
void BytesToAlphabet(std::string_view bytes, std::string* text);

}  // namespace gptoss
