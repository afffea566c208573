// Indices and folders that lie: names and links that leave the folder, indices and shards that disagree.

#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/json_writer.h"
#include "io/beneath.h"
#include "io/checkpoint.h"
#include "io/weight_map.h"
#include "tests/io/hostile_safetensors.h"
#include "tests/io/temp_folder.h"

namespace gov::test {
namespace {

namespace fs = std::filesystem;

const std::string kShard = file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x");
const std::string kOther = file_of(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "y");

// Counts opens and accesses of anything directly inside some folders.
class OpenWatch {
 public:
  OpenWatch() : fd_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}
  ~OpenWatch() { ::close(fd_); }
  void add(const fs::path& folder) { ASSERT_GE(::inotify_add_watch(fd_, folder.c_str(), IN_OPEN | IN_ACCESS), 0); }
  int events(std::string_view except = "") {
    alignas(inotify_event) std::array<char, 16384> buffer;
    int count = 0;
    for (ssize_t size; (size = ::read(fd_, buffer.data(), buffer.size())) > 0;) {
      for (ssize_t at = 0; at < size;) {
        const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
        if (event->len > 0 && event->name != except) ++count;
        at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      }
    }
    return count;
  }

 private:
  int fd_;
};

std::vector<std::string> hostile_names(const fs::path& outside) {
  std::vector<std::string> names = {"",
                                    ".",
                                    "..",
                                    ".hidden",
                                    ".safetensors",
                                    "...",
                                    "/",
                                    "//",
                                    "a/",
                                    "a\\b",
                                    "C:\\x.safetensors",
                                    "C:x",
                                    "x:y",
                                    "~",
                                    "~/x",
                                    "$HOME",
                                    "%2e%2e%2fx",
                                    "a b",
                                    " a",
                                    "a ",
                                    "a\n",
                                    "a\tb",
                                    "\x7F",
                                    "\xC3\xA9",
                                    "a\xE2\x80\xAE"
                                    "b",
                                    "\xEF\xBC\x8E\xEF\xBC\x8E/x",
                                    "a*",
                                    "a?",
                                    "a|b",
                                    "a;b",
                                    "`id`",
                                    "$(id)",
                                    "a&b",
                                    "a'b",
                                    "a\"b",
                                    "a<b",
                                    "a,b",
                                    "a+b",
                                    "a=b",
                                    "a@b",
                                    "a#b",
                                    "a!b",
                                    std::string("a\0b", 3),
                                    std::string("shard.safetensors\0/../x", 23),
                                    std::string(256, 'a'),
                                    std::string(5000, 'a'),
                                    "http://host/x.safetensors",
                                    "file:///etc/passwd",
                                    "nul\x01"};
  // Every way up, with every ending, to files that exist.
  const std::vector<std::string> ways = {"../",          "../../", "./../", "sub/../../", "..//",
                                         "sub/./../../", "/",      "//",    "./",         "sub/"};
  const std::vector<std::string> ends = {"outside/x.safetensors",
                                         "outside/secret",
                                         "x.safetensors",
                                         "shard.safetensors",
                                         "etc/passwd",
                                         "outside",
                                         "..",
                                         ".",
                                         "outside/../outside/x.safetensors",
                                         "dev/zero",
                                         "proc/self/mem",
                                         "model/shard.safetensors",
                                         "a\\..\\b",
                                         "outside/x.safetensors/",
                                         "outside/link",
                                         "sub/inner.safetensors",
                                         "%00",
                                         "outside//x.safetensors"};
  for (const std::string& way : ways) {
    for (const std::string& end : ends) names.push_back(way + end);
  }
  for (const char* end : {"x.safetensors", "secret", "", ".", "../outside/x.safetensors", "link"}) {
    names.push_back((outside / end).native());
  }
  for (int depth = 3; depth < 30; ++depth) {
    std::string up;
    for (int i = 0; i < depth; ++i) up += "../";
    names.push_back(up + "etc/passwd");
  }
  return names;
}

std::string index_with(std::string_view file) {
  JsonWriter json;
  json.begin_object().key("weight_map").begin_object().field("a", file).end_object().end_object();
  return json.take();
}

struct Scene {  // root/model is the model folder, root/outside holds what must not be touched
  TempFolder root;
  fs::path model = root / "model", outside = root / "outside";
  fs::path index = model / "model.safetensors.index.json";
  Scene() {
    fs::create_directories(model / "sub");
    fs::create_directory(outside);
    put_file(model / "shard.safetensors", kShard);
    put_file(model / "sub/inner.safetensors", kShard);
    put_file(outside / "x.safetensors", kShard);
    put_file(outside / "secret", "secret");
    fs::create_symlink("secret", outside / "link");
    put_file(root / "x.safetensors", kShard);
  }
};

TEST(CheckpointHostile, WeightMapNamesThatLeaveTheFolder) {
  const Scene scene;
  const std::vector<std::string> names = hostile_names(scene.outside);
  ASSERT_GE(names.size(), 250u);
  OpenWatch watch;
  watch.add(scene.outside);
  watch.add(scene.root.path());
  watch.add(scene.model / "sub");
  put_file(scene.index, index_with("shard.safetensors"));
  EXPECT_EQ(Checkpoint::open(scene.model).names().size(), 1u);
  get_file(scene.outside / "secret");
  EXPECT_GT(watch.events("model"), 0) << "the watch must see an open for this test to mean anything";
  for (const std::string& name : names) {
    put_file(scene.index, index_with(name));
    expect_error(ErrorCode::kCorrupt, "not a plain file name", [&] { Checkpoint::open(scene.model); });
  }
  EXPECT_EQ(watch.events("model"), 0);
  EXPECT_THROW(Folder(scene.model).open("../outside/secret"), Error);
}

TEST(CheckpointHostile, PlainNames) {
  for (const char* name : {"a", "model-00001-of-00002.safetensors", "A_b.C-d", "-", "_", "a..b", "1"}) {
    EXPECT_TRUE(is_plain_file_name(name)) << name;
  }
  EXPECT_TRUE(is_plain_file_name(std::string(255, 'a')));
}

TEST(CheckpointHostile, LinksThatLeaveTheFolder) {
  const Scene scene;
  put_file(scene.index, index_with("link.safetensors"));
  const fs::path link = scene.model / "link.safetensors";
  OpenWatch watch;
  watch.add(scene.outside);
  const std::string hex(64, 'a');
  fs::create_directory(scene.root / "blobs");
  put_file(scene.root / "blobs" / hex, kShard);
  const std::string absolute = (scene.outside / "x.safetensors").native();
  for (const std::string& target :
       {std::string("../outside/x.safetensors"), absolute, std::string("sub/inner.safetensors"),
        std::string("./shard.safetensors"), std::string("/dev/zero"), "../blobs/" + hex, "../../blobs/" + hex,
        std::string("../../blobs/../outside/x.safetensors"), std::string("..//outside/x.safetensors"),
        std::string(700, 'a'), "../../../../../blobs/" + hex}) {
    fs::create_symlink(target, link);
    expect_error(ErrorCode::kCorrupt, "symbolic link out of its model folder", [&] { Checkpoint::open(scene.model); });
    fs::remove(link);
  }
  // A link inside is fine, a link to a link is not, wherever the second one leads; a dangling one is just missing.
  fs::create_symlink("shard.safetensors", link);
  EXPECT_EQ(Checkpoint::open(scene.model).names().size(), 1u);
  fs::remove(scene.model / "shard.safetensors");
  expect_error(ErrorCode::kNotFound, "link.safetensors", [&] { Checkpoint::open(scene.model); });
  fs::create_symlink("../outside/x.safetensors", scene.model / "shard.safetensors");
  expect_error(ErrorCode::kCorrupt, "symbolic link", [&] { Checkpoint::open(scene.model); });
  // The index itself and a single model.safetensors follow the same rule.
  fs::remove(scene.index);
  fs::create_symlink("../outside/secret", scene.index);
  expect_error(ErrorCode::kCorrupt, "symbolic link", [&] { Checkpoint::open(scene.model); });
  fs::create_symlink("../outside/x.safetensors", scene.model / "model.safetensors");
  expect_error(ErrorCode::kCorrupt, "symbolic link", [&] { Checkpoint::open(scene.model); });
  EXPECT_EQ(watch.events(), 0);
}

TEST(CheckpointHostile, HuggingFaceCacheLayout) {
  const TempFolder root;
  const fs::path snapshot = root / "models--x--y/snapshots/0123abc";
  const std::string hex = std::string(60, 'b') + "0123";
  fs::create_directories(snapshot / "original");
  fs::create_directories(root / "models--x--y/blobs");
  put_file(root / "models--x--y/blobs" / hex, kShard);
  fs::create_symlink("../../blobs/" + hex, snapshot / "model.safetensors");
  fs::create_symlink("../../../blobs/" + hex, snapshot / "original/model.safetensors");
  EXPECT_EQ(Checkpoint::open(snapshot).names().size(), 1u);
  EXPECT_EQ(Checkpoint::open(snapshot / "original").names().size(), 1u);
  EXPECT_EQ(Checkpoint::open(snapshot / "model.safetensors").names().size(), 1u);
  fs::create_directory_symlink(snapshot, root / "short");
  EXPECT_EQ(Checkpoint::open(root / "short").names().size(), 1u);
  // A level too many or too few, another folder's blobs, a blob that is a link, blobs that is a link.
  const auto refused = [&](const std::string& target) {
    fs::remove(snapshot / "model.safetensors");
    fs::create_symlink(target, snapshot / "model.safetensors");
    expect_error(ErrorCode::kCorrupt, "symbolic link", [&] { Checkpoint::open(snapshot); });
  };
  fs::create_directories(root / "blobs");
  fs::create_directories(root / "models--x--y/snapshots/blobs");
  put_file(root / "blobs" / hex, kOther);
  put_file(root / "models--x--y/snapshots/blobs" / hex, kOther);
  refused("../../../blobs/" + hex);
  refused("../blobs/" + hex);
  refused("../../blobs/" + std::string(64, 'g'));
  refused("../../blobs/" + hex.substr(1));
  refused("../../blobs/" + hex + "/");
  const std::string linked(40, 'c');
  fs::create_symlink(hex, root / "models--x--y/blobs" / linked);
  refused("../../blobs/" + linked);
  fs::rename(root / "models--x--y/blobs", root / "elsewhere");
  fs::create_directory_symlink(root / "elsewhere", root / "models--x--y/blobs");
  refused("../../blobs/" + hex);
}

TEST(CheckpointHostile, IndexAndShardsDisagree) {
  const Scene scene;
  put_file(scene.model / "other.safetensors", kOther);
  const auto refused = [&](ErrorCode code, std::string_view part, std::string_view index) {
    put_file(scene.index, index);
    expect_error(code, part, [&] { Checkpoint::open(scene.model); });
  };
  refused(ErrorCode::kNotFound, "missing.safetensors", R"({"weight_map":{"a":"missing.safetensors"}})");
  refused(ErrorCode::kCorrupt, "'c' is not in shard.safetensors",
          R"({"weight_map":{"a":"shard.safetensors","c":"shard.safetensors"}})");
  refused(ErrorCode::kCorrupt, "'a' is not in other",
          R"({"weight_map":{"a":"other.safetensors","b":"other.safetensors"}})");
  put_file(
      scene.model / "copy.safetensors",
      file_of(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"c":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          "zz"));
  refused(ErrorCode::kCorrupt, "holds tensor 'a', which the index puts elsewhere",
          R"({"weight_map":{"a":"shard.safetensors","c":"copy.safetensors"}})");
  refused(ErrorCode::kCorrupt, "holds tensor 'c', which the index does not list",
          R"({"weight_map":{"a":"copy.safetensors"}})");
  put_file(scene.model / "cut.safetensors", kShard.substr(0, kShard.size() - 1));
  refused(ErrorCode::kCorrupt, "cut.safetensors", R"({"weight_map":{"a":"cut.safetensors"}})");
  ASSERT_EQ(::mkfifo((scene.model / "pipe.safetensors").c_str(), 0600), 0);
  refused(ErrorCode::kInvalidArgument, "not a regular file", R"({"weight_map":{"a":"pipe.safetensors"}})");
  refused(ErrorCode::kInvalidArgument, "not a regular file", R"({"weight_map":{"a":"sub"}})");
  put_file(scene.index,
           R"({"metadata":{"total_size":2,"x":[{}]},"weight_map":{"a":"shard.safetensors","b":"other.safetensors"}})");
  EXPECT_EQ(Checkpoint::open(scene.model).names().size(), 2u);
}

TEST(CheckpointHostile, BadIndexText) {
  const auto refused = [](std::string_view part, std::string_view text) {
    expect_error(ErrorCode::kCorrupt, part, [&] { parse_weight_map(text, "index"); });
  };
  refused("index: not a JSON object", "");
  refused("not a JSON object", "[]");
  refused("not a JSON object", "{");
  refused("not a JSON object", "{} x");
  refused("not a JSON object", "null");
  refused("not a JSON object", "{\"weight_map\":{\"\xFF\":\"a\"}}");
  refused("not a JSON object", std::string(100'000, '['));
  refused("not a JSON object", "{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}");
  refused("no weight_map", "{}");
  refused("no weight_map", R"({"Weight_map":{}})");
  refused("not an object", R"({"weight_map":[]})");
  refused("not an object", R"({"weight_map":"a"})");
  refused("weight_map is there twice", R"({"weight_map":{},"weight_map":{}})");
  refused("weight_map is there twice", R"({"weight_map":{},"w\u0065ight_map":{}})");
  refused("'a' is there twice", R"({"weight_map":{"a":"x","b":"y","a":"x"}})");
  refused("'a' is there twice", R"({"weight_map":{"a":"x","\u0061":"y"}})");
  refused("'a' is not a string", R"({"weight_map":{"a":1}})");
  refused("'a' is not a string", R"({"weight_map":{"a":["x"]}})");
  refused("'a' is not a string", R"({"weight_map":{"a":null}})");
  EXPECT_TRUE(parse_weight_map(R"({"weight_map":{}})", "index").empty());
  const auto entries = parse_weight_map(R"( {"x":1,"weight_map":{"b":"two","a":"on\u0065"}} )", "index");
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[1].tensor, "a");
  EXPECT_EQ(entries[1].file, "one");
}

}  // namespace
}  // namespace gov::test
