// The log's reader may be slow or gone; nobody waits for it.

#include "server/log_writer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "base/timer.h"

namespace gov::test {
namespace {

struct Pipe {
  Pipe() { EXPECT_EQ(pipe(ends), 0); }
  ~Pipe() {
    for (const int end : ends) close(end);
  }
  int ends[2];
};

std::string read_all(int descriptor) {
  std::string all(1 << 20, '\0');
  std::size_t have = 0;
  for (ssize_t count; (count = read(descriptor, all.data() + have, all.size() - have)) > 0;)
    have += static_cast<std::size_t>(count);
  all.resize(have);
  return all;
}

TEST(LogWriter, WritesLinesWholeAndInOrder) {
  Pipe pipe;
  std::string expected, read;
  std::thread reader([&] { read = read_all(pipe.ends[0]); });
  {
    server::LogWriter log(pipe.ends[1]);
    for (int i = 0; i < 2000; ++i) {
      const std::string line = std::to_string(i) + std::string(static_cast<std::size_t>(i % 300), 'x');
      log.add(line);
      expected += line + "\n";
    }
  }
  close(pipe.ends[1]);
  reader.join();
  pipe.ends[1] = dup(0);
  EXPECT_TRUE(read == expected);
}

TEST(LogWriter, AReaderThatReadsNothingKeepsNobodyWaiting) {
  Pipe pipe;
  const Timer timer;
  {
    server::LogWriter log(pipe.ends[1], 100);
    for (int i = 0; i < 20000; ++i) log.add(std::string(200, 'x'));
    EXPECT_LT(timer.seconds(), 2);
    EXPECT_GT(log.dropped(), 10000);
  }
  EXPECT_LT(timer.seconds(), 4) << "the end does not wait for it either";
}

}  // namespace
}  // namespace gov::test
