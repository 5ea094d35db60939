#include "train_page.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace gptoss::cli {
namespace {

constexpr int kWidth = 860, kHeight = 240, kLeft = 70, kTop = 14, kRight = 14, kBottom = 30;
constexpr size_t kMostPoints = 1200;  // more than the picture has columns

using Points = std::vector<std::pair<double, double>>;

struct Curve {
  Points points;
  const char* colour;
  const char* name;
};

Points PointsOf(const std::vector<Json>& lines, const char* key) {
  Points points;
  for (const Json& line : lines) {
    const Json *step = FindField(line, "step"), *value = FindField(line, key);
    if (step == nullptr || value == nullptr || !step->is_number() || !value->is_number()) continue;
    if (std::isfinite(value->get<double>())) points.emplace_back(step->get<double>(), value->get<double>());
  }
  return points;
}

/// Means of equal shares of the points, when there are too many to draw.
Points Thinned(const Points& all) {
  if (all.size() <= kMostPoints) return all;
  Points few;
  for (size_t i = 0; i < kMostPoints; ++i) {
    const size_t begin = i * all.size() / kMostPoints, end = (i + 1) * all.size() / kMostPoints;
    double x = 0, y = 0;
    for (size_t j = begin; j < end; ++j) {
      x += all[j].first;
      y += all[j].second;
    }
    few.emplace_back(x / static_cast<double>(end - begin), y / static_cast<double>(end - begin));
  }
  return few;
}

std::string Format(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

/// Text at a point of the picture.
std::string Label(double x, double y, const char* anchor, const std::string& text) {
  return "<text x=\"" + Format("%.1f", x) + "\" y=\"" + Format("%.1f", y) + "\" text-anchor=\"" + anchor + "\">" +
         text + "</text>\n";
}

std::string Chart(const char* title, const std::vector<Curve>& curves) {
  double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
  for (const Curve& curve : curves) {
    for (const auto& [x, y] : curve.points) {
      x0 = std::min(x0, x);
      x1 = std::max(x1, x);
      y0 = std::min(y0, y);
      y1 = std::max(y1, y);
    }
  }
  if (!(x0 <= x1)) return "";
  if (x0 == x1) x1 = x0 + 1;
  if (y0 == y1) y1 = y0 + std::max(1e-12, std::abs(y0) * 0.01);
  const auto across = [&](double x) { return kLeft + (x - x0) / (x1 - x0) * (kWidth - kLeft - kRight); };
  const auto up = [&](double y) { return kHeight - kBottom - (y - y0) / (y1 - y0) * (kHeight - kTop - kBottom); };
  std::string svg = "<h2>" + std::string(title) + "</h2>\n<svg viewBox=\"0 0 " + std::to_string(kWidth) + " " +
                    std::to_string(kHeight) + "\">\n";
  for (int i = 0; i <= 4; ++i) {
    const double value = y0 + (y1 - y0) * i / 4, at = up(value), step = x0 + (x1 - x0) * i / 4;
    svg += "<line class=\"grid\" x1=\"" + std::to_string(kLeft) + "\" x2=\"" + std::to_string(kWidth - kRight) +
           "\" y1=\"" + Format("%.1f", at) + "\" y2=\"" + Format("%.1f", at) + "\"/>\n";
    svg += Label(kLeft - 6, at + 4, "end", Format("%.4g", value));
    svg += Label(across(step), kHeight - 8, "middle", Format("%.0f", step));
  }
  double legend = kLeft + 10;
  for (const Curve& curve : curves) {
    svg += "<polyline stroke=\"" + std::string(curve.colour) + "\" points=\"";
    for (const auto& [x, y] : curve.points) svg += Format("%.1f", across(x)) + "," + Format("%.1f", up(y)) + " ";
    svg += "\"/>\n<g fill=\"" + std::string(curve.colour) + "\">" + Label(legend, kTop + 10, "start", curve.name) +
           "</g>\n";
    legend += 110;
  }
  return svg + "</svg>\n";
}

}  // namespace

std::string CurvesPage(const std::string& title, const std::vector<Json>& lines) {
  const auto curve = [&](const char* key, const char* colour, const char* name) {
    return Curve{Thinned(PointsOf(lines, key)), colour, name};
  };
  const std::string name = Escaped(title);
  return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Training " + name +
         "</title>\n<style>\nbody { font: 14px sans-serif; max-width: 900px; margin: 2em auto; }\n"
         "svg { width: 100%; background: #fafafa; }\nsvg text { font-size: 11px; }\n"
         ".grid { stroke: #ddd; }\npolyline { fill: none; stroke-width: 1.3; "
         "}\n</style>\n</head>\n<body>\n<h1>Training " +
         name + "</h1>\n" +
         Chart("Loss", {curve("loss", "#3366cc", "training"), curve("eval_loss", "#cc3311", "held out")}) +
         Chart("Norm of the gradient", {curve("gradient_norm", "#3366cc", "before clipping")}) +
         Chart("Learning rate", {curve("learning_rate", "#3366cc", "")}) +
         Chart("Tokens per second", {curve("tok_s", "#3366cc", "")}) + "</body>\n</html>\n";
}

}  // namespace gptoss::cli
