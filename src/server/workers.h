#pragma once
// Threads for the API's own work: reading requests, decoding pictures, writing answers. Neither the network's threads
// nor the engine's ever do it.

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace gov::server {

class Workers {
 public:
  using Job = std::function<void()>;

  Workers(int threads, std::size_t most_waiting);
  // Runs what still waits, then joins.
  ~Workers();
  Workers(const Workers&) = delete;

  // Error kOverloaded if most_waiting jobs wait already. A job is to tell its client itself when something fails; what
  // it throws all the same ends that job and nothing else.
  void post(Job job);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::size_t most_waiting_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// Jobs that run one after the other, in the order of post(), on some worker. post() never fails and never waits: at
// most one job of a strand is in the workers' queue, and their queue has to have room for as many as there are strands.
class Strand : public std::enable_shared_from_this<Strand> {
 public:
  explicit Strand(Workers& workers) : workers_(workers) {}
  void post(Workers::Job job);

 private:
  void run();

  Workers& workers_;
  std::mutex mutex_;
  std::deque<Workers::Job> jobs_;
  bool scheduled_ = false;
};

}  // namespace gov::server
