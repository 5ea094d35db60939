// `gptoss completion SHELL`: a completion script made from the very commands and flags that the program has, so that
// the two cannot drift apart.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "commands.h"

namespace gptoss::cli {
namespace {

struct Flag {
  std::vector<std::string> names;    // with their dashes, the long one last
  std::vector<std::string> choices;  // values that it takes, if they are few
  bool takes_value;
  std::string description;
};
struct Command {
  std::string name, description;
  std::vector<Flag> flags;
};

/// "TEXT:{a,b}" -> a, b.
std::vector<std::string> Choices(const std::string& type) {
  std::vector<std::string> choices;
  const size_t open = type.find('{'), close = type.find('}', open);
  if (open == std::string::npos || close == std::string::npos) return choices;
  for (size_t from = open + 1; from <= close;) {
    const size_t to = std::min(type.find(',', from), close);
    choices.push_back(type.substr(from, to - from));
    from = to + 1;
  }
  return choices;
}

std::vector<Command> Commands(const CLI::App& app) {
  std::vector<Command> commands;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    Command command{sub->get_name(), sub->get_description(), {}};
    for (const CLI::Option* option : sub->get_options()) {
      Flag flag{{}, Choices(option->get_type_name()), option->get_items_expected_max() > 0, option->get_description()};
      for (const std::string& name : option->get_snames()) flag.names.push_back("-" + name);
      for (const std::string& name : option->get_lnames()) flag.names.push_back("--" + name);
      if (!flag.names.empty()) command.flags.push_back(std::move(flag));
    }
    commands.push_back(std::move(command));
  }
  return commands;
}

std::string Join(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

/// In single quotes for any of the shells; a single quote inside is dropped, since fish and the others escape it
/// differently.
std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (char c : text) {
    if (c != '\'' && c != '\\') quoted += c == '\n' ? ' ' : c;
  }
  return quoted + "'";
}

std::string Bash(const std::vector<Command>& commands) {
  std::vector<std::string> names;
  std::string flags, values;
  for (const Command& command : commands) {
    names.push_back(command.name);
    std::vector<std::string> words;
    for (const Flag& flag : command.flags) {
      words.insert(words.end(), flag.names.begin(), flag.names.end());
      if (flag.choices.empty()) continue;
      for (const std::string& name : flag.names) {
        values += "    " + command.name + ":" + name + ") words=" + Quoted(Join(flag.choices, " ")) + " ;;\n";
      }
    }
    flags += "      " + command.name + ") words=" + Quoted(Join(words, " ")) + " ;;\n";
  }
  return "_gptoss() {\n"
         "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words=\n"
         "  COMPREPLY=()\n"
         "  if ((COMP_CWORD == 1)); then\n"
         "    COMPREPLY=($(compgen -W " +
         Quoted(Join(names, " ") + " --help --version") +
         " -- \"$word\"))\n    return\n  fi\n"
         "  case $command:$before in\n" +
         values +
         "  esac\n"
         "  if [[ -z $words && $word == -* ]]; then\n"
         "    case $command in\n" +
         flags +
         "    esac\n"
         "  fi\n"
         "  # Without words of our own the shell completes file names.\n"
         "  if [[ -n $words ]]; then COMPREPLY=($(compgen -W \"$words\" -- \"$word\")); fi\n"
         "}\n"
         "complete -o default -F _gptoss gptoss\n";
}

/// ":" and brackets end a description in zsh's lists.
std::string ZshText(const std::string& text) {
  std::string clean;
  for (char c : text) clean += c == ':' || c == '[' || c == ']' ? ' ' : c;
  return clean;
}

std::string Zsh(const std::vector<Command>& commands) {
  std::string names, cases;
  for (const Command& command : commands) {
    names += "    " + Quoted(command.name + ":" + ZshText(command.description)) + "\n";
    cases += "    " + command.name + ") _arguments";
    for (const Flag& flag : command.flags) {
      for (const std::string& name : flag.names) {
        std::string spec = name + "[" + ZshText(flag.description) + "]";
        if (flag.takes_value)
          spec += flag.choices.empty() ? ":value:_files" : ":value:(" + Join(flag.choices, " ") + ")";
        cases += " \\\n      " + Quoted(spec);
      }
    }
    cases += " \\\n      '*:file:_files' ;;\n";
  }
  return "#compdef gptoss\n_gptoss() {\n  local -a commands\n  commands=(\n" + names +
         "  )\n"
         "  if ((CURRENT == 2)); then\n    _describe command commands\n    return\n  fi\n"
         "  local command=$words[2]\n"
         "  shift words\n  ((CURRENT--))\n"
         "  case $command in\n" +
         cases + "  esac\n}\ncompdef _gptoss gptoss\n";
}

std::string Fish(const std::vector<Command>& commands) {
  std::string script;
  for (const Command& command : commands) {
    script += "complete -c gptoss -n __fish_use_subcommand -f -a " + command.name + " -d " +
              Quoted(command.description) + "\n";
    for (const Flag& flag : command.flags) {
      script += "complete -c gptoss -n '__fish_seen_subcommand_from " + command.name + "'";
      for (const std::string& name : flag.names) {
        script += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      if (flag.takes_value) script += flag.choices.empty() ? " -r" : " -x -a " + Quoted(Join(flag.choices, " "));
      script += " -d " + Quoted(flag.description) + "\n";
    }
  }
  return script;
}

}  // namespace

void RegisterCompletion(CLI::App& app, int* exit_code) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "A script that completes commands and flags in a shell");
  command->add_option("shell", *shell, "The shell")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(
      "Examples:\n  source <(gptoss completion bash)\n  source <(gptoss completion zsh)\n"
      "  gptoss completion fish > ~/.config/fish/completions/gptoss.fish");
  command->callback([shell, exit_code, &app] {
    const std::vector<Command> commands = Commands(app);
    const std::string script = *shell == "bash" ? Bash(commands) : *shell == "zsh" ? Zsh(commands) : Fish(commands);
    std::fwrite(script.data(), 1, script.size(), stdout);
    *exit_code = 0;
  });
}

}  // namespace gptoss::cli
