#pragma once
// What one training or test image of nano shows.

#include <string>
#include <vector>

#include "train/nano_data.h"
#include "train/nano_random.h"

namespace gov::train {

struct Scene {
  Image image;
  std::vector<std::size_t> pictures;  // of NanoData, in reading order
  std::vector<const char*> places;    // [pictures], "on the left"; of a single one "in the middle"
  std::string background;             // name of its one colour; empty: it has several or is not named
};

// One picture over the whole canvas of side x side. Without `augment` it is what a user's file gives: laid over white
// and resized as the preprocessor does.
Scene single_scene(const NanoData& data, std::size_t picture, int side, bool augment, NanoRandom& random);
// One to four pictures side by side on a plain, graded or noisy background. `augment` varies their colours and turns
// them a little; places and backgrounds vary in any case.
Scene composed_scene(const NanoData& data, std::vector<std::size_t> pictures, int side, bool augment,
                     NanoRandom& random);
// 1, 2, 3 or 4, as often as the reference had them: 14, 55, 15 and 16 of a hundred.
std::size_t draw_picture_count(NanoRandom& random);

}  // namespace gov::train
