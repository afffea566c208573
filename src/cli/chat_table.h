#pragma once
// Markdown tables as aligned text.

#include "cli/chat_glyph.h"

namespace gov::cli {

// Whether a line is a table's second one: | --- | :-: |
bool is_table_rule(std::u32string_view line);

// The rows of a table, the second being its rule, as lines no wider than `width`; cells are wrapped when they must.
// Columns too many for the width: a line "heading: cell" for every cell instead.
void write_table(const std::vector<std::u32string>& rows, int width, std::uint8_t base, Glyphs& out);

}  // namespace gov::cli
