#include "cli/chat_table.h"

#include <algorithm>

#include "cli/chat_inline.h"

namespace gov::cli {
namespace {

constexpr int kLeastColumn = 5;  // narrower cells cannot be read
constexpr std::u32string_view kBetween = U" │ ";

enum class Align { kLeft, kMiddle, kRight };

std::u32string_view trimmed(std::u32string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Cells between bars; a bar behind a backslash or inside of code belongs to its cell.
std::vector<std::u32string> split_row(std::u32string_view line) {
  line = trimmed(line);
  if (line.starts_with(U'|')) line.remove_prefix(1);
  std::vector<std::u32string> cells;
  std::u32string cell;
  bool code = false, open = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    open = true;
    if (line[i] == '\\' && i + 1 < line.size() && line[i + 1] == '|') {
      cell += line[++i];
      continue;
    }
    if (line[i] == '`') code = !code;
    if (line[i] == '|' && !code) {
      cells.emplace_back(trimmed(cell));
      cell.clear();
      open = false;
    } else {
      cell += line[i];
    }
  }
  if (open) cells.emplace_back(trimmed(cell));
  return cells;
}

Align align_of(std::u32string_view rule) {
  const bool left = rule.starts_with(U':'), right = rule.ends_with(U':');
  return left && right ? Align::kMiddle : right ? Align::kRight : Align::kLeft;
}

Glyphs styled(std::u32string_view text, std::uint8_t base) {
  InlineParser parser;
  Glyphs out;
  parser.begin(base);
  for (const char32_t c : text) parser.append(c, out);
  parser.finish(out);
  return out;
}

std::vector<Glyphs> wrapped(const Glyphs& cell, int width) {
  LineWrapper wrapper(width);
  Glyphs out;
  for (const Glyph& glyph : cell) wrapper.put(glyph, out);
  wrapper.end(out);
  std::vector<Glyphs> lines(1);
  for (const Glyph& glyph : out) {
    if (glyph.c == '\n') lines.emplace_back();
    else lines.back().push_back(glyph);
  }
  lines.pop_back();
  return lines;
}

void spaces(Glyphs& out, int count) { out.insert(out.end(), static_cast<std::size_t>(std::max(0, count)), {' ', 0}); }

struct Layout {
  std::vector<int> widths;
  std::vector<Align> aligns;
  bool fits = true;
};

// The natural widths, the widest columns cut until all fit.
Layout lay_out(const std::vector<std::vector<Glyphs>>& rows, const std::vector<std::u32string>& rule, int width) {
  Layout layout;
  const std::size_t columns = rows.front().size();
  layout.widths.assign(columns, 1);
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < columns; ++i) layout.widths[i] = std::max(layout.widths[i], glyph_width(row[i]));
  }
  for (std::size_t i = 0; i < columns; ++i) layout.aligns.push_back(i < rule.size() ? align_of(rule[i]) : Align::kLeft);
  const auto room = std::int64_t{width} - static_cast<std::int64_t>(kBetween.size() * (columns - 1));
  const auto total_at = [&](int most) {
    std::int64_t total = 0;
    for (const int w : layout.widths) total += std::min(w, most);
    return total;
  };
  int most = width;
  while (most >= kLeastColumn && total_at(most) > room) --most;
  layout.fits = most >= kLeastColumn || total_at(most) <= room;
  for (int& w : layout.widths) w = std::min(w, most);
  return layout;
}

void write_row(const std::vector<Glyphs>& row, const Layout& layout, std::uint8_t base, Glyphs& out) {
  std::vector<std::vector<Glyphs>> cells;
  std::size_t lines = 1;
  for (std::size_t i = 0; i < row.size(); ++i) {
    cells.push_back(wrapped(row[i], layout.widths[i]));
    lines = std::max(lines, cells.back().size());
  }
  for (std::size_t line = 0; line < lines; ++line) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const Glyphs text = line < cells[i].size() ? cells[i][line] : Glyphs();
      const int rest = layout.widths[i] - glyph_width(text);
      const int before = layout.aligns[i] == Align::kRight ? rest : layout.aligns[i] == Align::kMiddle ? rest / 2 : 0;
      if (i > 0) append_glyphs(out, kBetween, base | style::kDim);
      spaces(out, before);
      out.insert(out.end(), text.begin(), text.end());
      if (i + 1 < cells.size()) spaces(out, rest - before);
    }
    out.push_back({'\n', 0});
  }
}

void write_rule(const Layout& layout, std::uint8_t base, Glyphs& out) {
  for (std::size_t i = 0; i < layout.widths.size(); ++i) {
    if (i > 0) append_glyphs(out, U"─┼─", base | style::kDim);
    append_glyphs(out, std::u32string(static_cast<std::size_t>(layout.widths[i]), U'─'), base | style::kDim);
  }
  out.push_back({'\n', 0});
}

void write_as_list(const std::vector<std::vector<Glyphs>>& rows, int width, Glyphs& out) {
  for (std::size_t r = 1; r < rows.size(); ++r) {
    for (std::size_t i = 0; i < rows[r].size(); ++i) {
      LineWrapper wrapper(width);
      wrapper.begin({}, {{' ', 0}, {' ', 0}}, out);
      for (const Glyph& glyph : rows[0][i]) wrapper.put(glyph, out);
      wrapper.put({':', 0}, out);
      wrapper.put({' ', 0}, out);
      for (const Glyph& glyph : rows[r][i]) wrapper.put(glyph, out);
      wrapper.end(out);
    }
  }
}

}  // namespace

bool is_table_rule(std::u32string_view line) {
  const auto cells = split_row(line);
  return !cells.empty() && std::all_of(cells.begin(), cells.end(), [](std::u32string_view cell) {
    if (cell.starts_with(U':')) cell.remove_prefix(1);
    if (cell.ends_with(U':')) cell.remove_suffix(1);
    return !cell.empty() && std::all_of(cell.begin(), cell.end(), [](char32_t c) { return c == '-'; });
  });
}

void write_table(const std::vector<std::u32string>& rows, int width, std::uint8_t base, Glyphs& out) {
  std::vector<std::vector<Glyphs>> cells;
  const std::size_t columns = std::max<std::size_t>(1, split_row(rows[0]).size());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (r == 1) continue;
    std::vector<Glyphs>& row = cells.emplace_back();
    for (const std::u32string& cell : split_row(rows[r])) {
      if (row.size() == columns) break;  // as elsewhere, cells without a heading are left out
      row.push_back(styled(cell, r == 0 ? base | style::kBold : base));
    }
    row.resize(columns);
  }
  const Layout layout = lay_out(cells, split_row(rows[1]), width);
  if (!layout.fits) return write_as_list(cells, width, out);
  for (std::size_t r = 0; r < cells.size(); ++r) {
    write_row(cells[r], layout, base, out);
    if (r == 0) write_rule(layout, base, out);
  }
}

}  // namespace gov::cli
