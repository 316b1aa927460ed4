"""fastgan completion: what a shell offers at the Tab key, as a script that runs no Python."""

from __future__ import annotations

import sys

from fastgan.fields import docstring

SHELLS = ("bash", "zsh", "fish")
_TO_DO = """To have it from the next shell on:
  bash  fastgan completion bash > ~/.local/share/bash-completion/completions/fastgan
  zsh   fastgan completion zsh > ~/.fastgan.zsh, and the line `source ~/.fastgan.zsh` in ~/.zshrc
  fish  fastgan completion fish > ~/.config/fish/completions/fastgan.fish
The script knows the recipes and options of now: write it anew after an update, or for recipes that a package adds."""


def completion(argv: list[str]) -> int:
    """Commands and options at the Tab key: fastgan completion bash|zsh|fish"""
    shell, *rest = argv or ["--help"]
    if shell not in SHELLS or rest:
        known = shell in ("-h", "--help")
        if not known:
            print(f"fastgan completion: expected one of {', '.join(SHELLS)}, got {' '.join(argv)!r}", file=sys.stderr)
        print(f"{docstring(completion)}\n\n{_TO_DO}", file=None if known else sys.stderr)
        return 0 if known and argv else 2
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](*_words()))
    return 0


def _words() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Words that may follow "", "train", "train dcgan" and so on; and words that may follow one of the options, by its name."""
    from fastgan.cli import COMMANDS
    from fastgan.cli.arguments import arguments, choices, flags
    from fastgan.cli.convert import Options as Convert
    from fastgan.cli.data import Options as Prepare
    from fastgan.cli.edit import Find, Project
    from fastgan.cli.evaluate import Options as Evaluate
    from fastgan.cli.export import Options as Export
    from fastgan.cli.options import of_setting, of_words
    from fastgan.cli.sample import Options as Sample
    from fastgan.cli.share import Pull, Push
    from fastgan.cli.train import words_of
    from fastgan.data import names
    from fastgan.data.text import TEXT_NAMES
    from fastgan.recipes import RECIPES
    from fastgan.training.settings import Settings, options

    classes = {
        "sample": Sample,
        "eval": Evaluate,
        "convert": Convert,
        "project": Project,
        "directions": Find,
        "export": Export,
        "push": Push,
        "pull": Pull,
        "data prepare": Prepare,
    }
    known = {name: arguments(config) for name, config in classes.items()}
    values: dict[str, list[str]] = {
        "--data": [*names(), *TEXT_NAMES],
        "--device": ["auto", "cpu", "cuda"],
        "--preset": [],
    }
    for recipe in RECIPES:
        try:
            kind = RECIPES.resolve(recipe)
        except (ImportError, ValueError):  # a package's, which is broken: the others still complete
            continue
        settings = Settings.of(kind)
        values["--preset"] += [name for name in kind.presets if name not in values["--preset"]]
        known[f"train {recipe}"] = [*of_words(words_of(kind)), *(of_setting(o, settings[o]) for o in options(kind))]
    after = {
        "": [*COMMANDS, "--help", "--version"],
        "train": [*RECIPES, "--help"],
        "data": ["list", "prepare", "--help"],
    }
    after |= {"completion": [*SHELLS, "--help"], "data list": [], "info": ["--help"]}
    for command, taken in known.items():
        after[command] = [*(word for argument in taken for word in flags(argument)), "--help"]
        for argument in taken:
            for option in flags(argument)[:1]:
                values.setdefault(option, []).extend(w for w in choices(argument.hint) if w not in values[option])
    return after, {option: words for option, words in values.items() if words}


def _bash(after: dict[str, list[str]], values: dict[str, list[str]]) -> str:
    return f"""# Written by: fastgan completion bash
_fastgan() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="" words="" files=""
  if [ "$COMP_CWORD" -gt 1 ]; then
    command="${{COMP_WORDS[1]}}"
    case "$command" in
      train|data) if [ "$COMP_CWORD" -gt 2 ]; then command="$command ${{COMP_WORDS[2]}}"; fi ;;
    esac
  fi
  case "$previous" in
{_cases(values, "{}) words={} ;;")}
  esac
  case "$command" in
    ""|train|data|completion|"data list"|info) ;;
    *) case "$current" in -*) ;; *) files=yes ;; esac ;;
  esac
  if [ -z "$words$files" ]; then
    case "$command" in
{_cases(after, "{}) words={} ;;")}
    esac
  fi
  COMPREPLY=( $(compgen -W "$words" -- "$current") )
  if [ -n "$files" ]; then COMPREPLY+=( $(compgen -f -- "$current") ); fi
}}
complete -o filenames -F _fastgan fastgan"""


def _zsh(after: dict[str, list[str]], values: dict[str, list[str]]) -> str:
    begin = "autoload -U +X compinit bashcompinit && compinit && bashcompinit"
    return f"# Written by: fastgan completion zsh\n{begin}\n{_bash(after, values).partition(chr(10))[2]}"


def _fish(after: dict[str, list[str]], values: dict[str, list[str]]) -> str:
    return f"""# Written by: fastgan completion fish
function __fastgan
  set -l tokens (commandline -opc)
  set -l command ""
  if set -q tokens[2]
    set command $tokens[2]
    if contains -- $command train data; and set -q tokens[3]
      set command "$command $tokens[3]"
    end
  end
  switch $tokens[-1]
{_cases(values, "case {}; string split -- ' ' {}; return")}
  end
  switch $command
{_cases(after, "case {}; string split -- ' ' {}")}
  end
end
complete -c fastgan -a '(__fastgan)'"""


def _cases(table: dict[str, list[str]], line: str) -> str:
    """A line for each row of `table`, with its key and its words, quoted."""
    return "\n".join(f"      {line.format(_quoted(key), _quoted(' '.join(words)))}" for key, words in table.items())


def _quoted(text: str) -> str:
    return f'"{text}"'  # names and options have neither quotes nor dollars
