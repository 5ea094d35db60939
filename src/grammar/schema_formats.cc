#include "grammar/schema_formats.h"

#include <map>
#include <string>

#include "base/check.h"

namespace gptoss {
namespace {

/// Every format is a subset of what its RFC allows: what is generated is valid for any reader.
std::map<std::string, std::string> Patterns() {
  std::map<std::string, std::string> out;
  // RFC 3339, section 5.6; days by month, leap years of the Gregorian calendar, no leap seconds.
  const std::string leap_year = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
  const std::string date =
      "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|"
      "30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|" +
      leap_year + "-02-29)";
  const std::string time =
      "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
  out["date"] = date;
  out["time"] = time;
  out["date-time"] = date + "[Tt]" + time;
  // RFC 3339, appendix A.
  const std::string dur_time =
      "T(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S)";
  const std::string dur_date =
      "(?:[0-9]{1,9}D|[0-9]{1,9}M(?:[0-9]{1,9}D)?|[0-9]{1,9}Y(?:[0-9]{1,9}M(?:[0-9]{1,9}D)?)?)";
  out["duration"] = "P(?:" + dur_date + "(?:" + dur_time + ")?|" + dur_time + "|[0-9]{1,9}W)";
  // At most 61 characters, told apart without looking ahead (hyphens in at most four places), which keeps masks cheap.
  const std::string label = "(?:[A-Za-z0-9]{1,61}|[A-Za-z0-9]{1,17}(?:--?[A-Za-z0-9]{1,9}){1,4})";
  // RFC 5321: dot-atoms only, no quoted local parts and no address literals; a local part of at most 64 characters and
  // a domain of two to four labels, which 253 characters hold.
  const std::string atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]";
  out["email"] = atom + "{1,16}(?:\\." + atom + "{1,15}){0,3}@" + label + "(?:\\." + label + "){1,3}";
  // RFC 1123, section 2.1; labels with "--" as their third and fourth character belong to IDNA and are left out.
  const std::string plain = "(?:[A-Za-z0-9]{1,61}|[A-Za-z0-9]{1,17}(?:-[A-Za-z0-9]{1,10}){1,4})";
  out["hostname"] = plain + "(?:\\." + plain + "){0,3}";  // at most 247 characters of the 253
  const std::string byte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  const std::string ipv4 = byte + "(?:\\." + byte + "){3}";
  out["ipv4"] = ipv4;
  // RFC 4291, section 2.2.
  const std::string h = "[0-9A-Fa-f]{1,4}";
  std::string ipv6 = "(?:" + h + ":){7}" + h + "|(?:" + h + ":){6}" + ipv4;
  for (int before = 0; before <= 7; ++before) {
    const std::string left = before == 0 ? "" : h + "(?::" + h + "){" + std::to_string(before - 1) + "}";
    const int most = 7 - before;  // groups after "::", which stands for at least one
    std::string right = most > 0 ? "(?:" + h + "(?::" + h + "){0," + std::to_string(most - 1) + "})?" : "";
    ipv6 += "|" + left + "::" + right;
    if (most >= 2) ipv6 += "|" + left + "::(?:" + h + ":){0," + std::to_string(most - 2) + "}" + ipv4;
  }
  out["ipv6"] = ipv6;
  out["uuid"] = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}";
  // RFC 3986: absolute, not only a scheme, hosts by name or IPv4 or IPv6.
  const std::string pct = "%[0-9A-Fa-f]{2}";
  const std::string pchar = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|" + pct + ")";
  const std::string tail = "(?:\\?(?:" + pchar + "|[/?])*)?(?:#(?:" + pchar + "|[/?])*)?";
  const std::string host = "(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|" + pct + ")*|\\[(?:" + ipv6 + ")\\])";
  const std::string authority = "(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|" + pct + ")*@)?" + host + "(?::[0-9]{0,5})?";
  const std::string path = "(?:/" + pchar + "*)*";
  const std::string segments = pchar + "+(?:/" + pchar + "*)*";
  out["uri"] =
      "[A-Za-z][A-Za-z0-9+.-]{0,31}:(?://" + authority + path + "|/(?:" + segments + ")?|" + segments + ")" + tail;
  return out;
}

}  // namespace

Regex FormatRegex(const std::string& format) {
  static const std::map<std::string, Regex>* const kFormats = [] {
    auto* all = new std::map<std::string, Regex>();
    for (const auto& [name, pattern] : Patterns()) {
      const Result<Regex> regex = ParseRegex(pattern);
      GPTOSS_CHECK(regex.ok());
      all->emplace(name, *regex);
    }
    return all;
  }();
  const auto it = kFormats->find(format);
  return it == kFormats->end() ? nullptr : it->second;
}

}  // namespace gptoss
