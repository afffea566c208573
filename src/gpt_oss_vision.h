#pragma once
// The library in one include: open a model folder, read pictures, build prompts, run requests.

#include "base/error.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/model_package.h"
#include "image/image.h"
#include "image/preprocess.h"
#include "text/chat.h"
#include "text/tokenizer.h"
