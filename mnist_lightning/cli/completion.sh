# What `mnist-lightning` takes at the tab key; made by `mnist-lightning completion {{ shell }}`.
{% if shell == "zsh" %}
autoload -U +X compinit bashcompinit && compinit && bashcompinit
{% endif %}
_mnist_lightning() {
  local word="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{{ options | join(' ') }} --help --version"
  elif [ "${word:0:1}" = "-" ]; then
    case "$command" in
{% for name, of in options.items() %}
      {{ name }}) words="{{ of | join(' ') }}" ;;
{% endfor %}
    esac
  else
    case "$command" in
      {{ take_runs | join('|') }})
        words="best last $(ls lightning_logs 2>/dev/null | sed -nE 's/^version_([0-9]{1,9})$/\1/p')" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _mnist_lightning mnist-lightning
