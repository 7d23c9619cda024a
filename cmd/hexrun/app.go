package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

const description = `Flags are those of llama.cpp's tools, and so are their LLAMA_ARG_* variables.
Replies and tables go to standard output, everything else to standard error.

Exit codes:
     0  success
     1  error: one sentence on standard error says what is wrong and what to do
     2  the command line, a LLAMA_ARG_* variable or the cache settings are wrong
   130  interrupted by Ctrl-C`

// run executes a command line without the program's name and returns the exit code.
func run(ctx context.Context, e *env, args []string) int {
	cli.FlagStringer = flagText
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "print the version", Local: true} // -v is --verbose
	e.args = args
	out := &output{Writer: e.stdout}
	e.stdout = out
	app := newApp(e)
	err := app.Run(ctx, append([]string{app.Name}, normalize(args, app.Commands)...))
	if fromParser(err) { // a bad variable is not passed to OnUsageError
		err = commandLine(app, args, err)
	}
	if err == nil && out.failed != nil {
		err = fmt.Errorf("the output could not be written (%w); free some space, or write it elsewhere", out.failed)
	}
	code := exitCode(err)
	switch {
	case code == exitInterrupted:
		e.note("interrupted")
	case err != nil:
		e.note("hexrun: %s", strings.TrimSpace(err.Error()))
	}
	return code
}

// newApp builds the command tree.
func newApp(e *env) *cli.Command {
	onUsageError := func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		return commandLine(cmd, e.args, err)
	}
	app := &cli.Command{
		Name:           "hexrun",
		Usage:          "language models on a compressed KV cache",
		Description:    description,
		Version:        hexkv.Version().Version,
		Writer:         e.stdout,
		ErrWriter:      e.stderr,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // run does it
		OnUsageError:   onUsageError,
		Commands: []*cli.Command{
			chatCommand(e), runCommand(e), compareCommand(e), benchCommand(e), evalCommand(e), infoCommand(e), versionCommand(e), measureCommand(e),
		},
	}
	app.Action = func(_ context.Context, cmd *cli.Command) error {
		if name := cmd.Args().First(); name != "" {
			return noCommand(name)
		}
		return cli.ShowAppHelp(cmd)
	}
	prepare(app.Commands, onUsageError)
	return app
}

// noCommand refuses a name that is none of the commands.
func noCommand(name string) error {
	return usagef("%q is no command; use chat, run, compare, bench, eval, info or version", name)
}

// unknownCommand is what the user typed in place of a command below cmd; empty: one that there is, a flag, or nothing.
func unknownCommand(cmd *cli.Command, args []string) string {
	at := strings.Count(cmd.FullName(), " ")
	if len(cmd.Commands) == 0 || at >= len(args) || strings.HasPrefix(args[at], "-") || cmd.Command(args[at]) != nil {
		return ""
	}
	return args[at]
}

// prepare sets what all commands have in common.
func prepare(commands []*cli.Command, onUsageError cli.OnUsageErrorFunc) {
	for _, c := range commands {
		c.OnUsageError = onUsageError
		c.HideHelpCommand = true
		prepare(c.Commands, onUsageError)
	}
}

// action wraps what a command does: arguments without a flag are refused, Ctrl-C cancels ctx, and errors are marked.
func action(e *env, do func(ctx context.Context, cmd *cli.Command) error) cli.ActionFunc {
	return func(ctx context.Context, cmd *cli.Command) error {
		if cmd.Args().Present() {
			return stray(cmd, cmd.Args().First())
		}
		ctx, done := e.interrupts.task(ctx)
		defer done()
		if err := do(ctx, cmd); err != nil {
			return actionError{inFlags(err)}
		}
		return nil
	}
}

// stray refuses an argument without a flag, with the flags that this command has.
func stray(cmd *cli.Command, arg string) error {
	has := map[string]bool{}
	for _, f := range cmd.Flags {
		has[f.Names()[0]] = true
	}
	if has["model"] && strings.HasSuffix(strings.ToLower(arg), ".gguf") {
		return usagef("%q is not understood; name the model with -m %s (see %s --help)", arg, arg, cmd.FullName())
	}
	var give []string
	for _, each := range []struct{ flag, hint string }{
		{"prompt", "a prompt with -p"}, {"file", "a file with -f"}, {"model", "a model with -m"},
	} {
		if has[each.flag] {
			give = append(give, each.hint)
		}
	}
	for _, c := range cmd.Commands {
		give = append(give, c.Name)
	}
	if len(cmd.Commands) > 0 {
		return usagef("%q is not understood; use %s %s (see %s --help)", arg, cmd.FullName(), strings.Join(give, ", "), cmd.FullName())
	}
	if len(give) == 0 {
		return usagef("%q is not understood; see %s --help", arg, cmd.FullName())
	}
	return usagef("%q is not understood; give %s (see %s --help)", arg, strings.Join(give, ", "), cmd.FullName())
}
