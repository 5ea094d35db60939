// What mapping a packed checkpoint takes beyond opening it.
#pragma once

#include "checkpoint/packed.h"
#include "model/weights.h"

namespace gptoss {

/// A packed file holds one precision. kDefault accepts whatever it is; kAsStored needs a file in which nothing was
/// rounded; kInt8 one in which all dense matrices are Q8_0. On failure: kUnsupported saying how to pack again.
Status CheckPackedPrecision(const PackedCheckpoint& packed, DensePrecision dense);

/// On failure: kUnsupported for a layout that this build does not know.
Result<WeightLayout> PackedLayout(const PackedCheckpoint& packed, const PackedTensor& tensor);

/// Maps the pages of everything but the embedding into the process, reading from the disk what is not in the page
/// cache: afterwards no step waits for a page. On failure: kIo, kCancelled.
Status FetchPackedPages(const PackedCheckpoint& packed, ThreadPool& pool, WriteProgress* progress);

}  // namespace gptoss
