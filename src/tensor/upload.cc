#include <algorithm>
#include <atomic>

#include "tensor/device.h"

namespace gov {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{8} << 20;

// Two buffers, each with a stream of its own: while one is on its way the other is filled.
struct Lane {
  PinnedBuffer buffer;
  Stream stream;
};

}  // namespace

void upload(std::span<const UploadJob> jobs, int ordinal, ThreadPool& pool,
            const std::function<void(std::uint64_t done)>& progress) {
  struct Piece {
    const UploadJob* job;
    std::uint64_t offset, bytes;
  };
  std::vector<Piece> pieces;
  for (const UploadJob& job : jobs) {
    for (std::uint64_t at = 0; at < job.bytes; at += kPieceBytes)
      pieces.push_back({&job, at, std::min(kPieceBytes, job.bytes - at)});
  }
  std::atomic<std::uint64_t> done{0};
  std::vector<std::vector<Lane>> lanes(static_cast<std::size_t>(pool.size()));
  pool.parallel_for(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    std::vector<Lane>& mine = lanes[static_cast<std::size_t>(thread)];
    use_cuda_device(ordinal);
    while (mine.size() < 2) mine.push_back({PinnedBuffer(kPieceBytes, "loading"), Stream::create()});
    for (std::int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<std::size_t>(i)];
      Lane& lane = mine.front();
      synchronize(lane.stream.get());
      piece.job->read(piece.offset, {static_cast<std::byte*>(lane.buffer.data()), piece.bytes});
      copy_bytes(static_cast<char*>(piece.job->to) + piece.offset, DeviceKind::kCuda, lane.buffer.data(),
                 DeviceKind::kCpu, piece.bytes, lane.stream.get());
      std::swap(mine[0], mine[1]);
      done += piece.bytes;
      if (thread == 0 && progress) progress(done);
    }
  });
  for (const std::vector<Lane>& mine : lanes) {
    for (const Lane& lane : mine) synchronize(lane.stream.get());
  }
  if (progress) progress(done);
}

}  // namespace gov
