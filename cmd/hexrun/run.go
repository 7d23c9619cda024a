package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/hexkv"
)

const runHelp = `The prompt is -p, then the file of -f, or else standard input: without -p all of it, and with -p what a file
holds, or a pipe that has data or an end within a second, as in: cat notes.txt | hexrun run -p "Summarize:"
A loop that reads its own standard input (while read ...) gives hexrun < /dev/null.

Without --hex the cache is the stock f16 one.`

func runCommand(e *env) *cli.Command {
	flags := append(modelFlags(), contextFlags(4096)...)
	flags = append(append(flags, offloadFlag()), cacheFlags()...)
	flags = append(flags, samplingFlags()...)
	flags = append(flags, promptFlags("the prompt")...)
	flags = append(flags,
		text(aboutPrompt, "file f", "", "FILE|a file with the prompt, or with what follows -p; - is standard input"),
		&cli.BoolFlag{Name: "raw", Aliases: []string{"no-cnv", "no-conversation"}, Category: aboutPrompt,
			Usage: "continue the text itself, without the model's chat template"},
	)
	return &cli.Command{
		Name:        "run",
		Usage:       "answer one prompt",
		Description: runHelp,
		Flags:       flags,
		Action:      action(e, func(ctx context.Context, cmd *cli.Command) error { return answer(ctx, e, cmd) }),
	}
}

// answer prints the reply to one prompt, then statistics.
func answer(ctx context.Context, e *env, cmd *cli.Command) error {
	// All settings are checked before the model is loaded.
	opts, err := sessionOptions(cmd)
	if err != nil {
		return err
	}
	generate := &hexkv.GenerateOptions{}
	if generate.Sampling, err = sampling(e, cmd); err != nil {
		return err
	}
	if generate.MaxTokens, err = maxTokens(cmd); err != nil {
		return err
	}
	prompt, err := readPrompt(e, cmd)
	if err != nil {
		return err
	}

	m, err := openModel(ctx, e, cmd)
	if err != nil {
		return err
	}
	defer m.Close()
	tokens, err := promptTokens(m, cmd, prompt)
	if err != nil {
		return err
	}
	s, err := openSession(ctx, e, m, opts)
	if err != nil {
		return err
	}
	defer s.Close()

	var failed error
	printed := 0
	for token, err := range s.Generate(ctx, tokens, generate) {
		if failed = err; err == nil {
			fmt.Fprint(e.stdout, token.Text)
			printed++
		}
	}
	if printed > 0 {
		fmt.Fprintln(e.stdout)
	}
	if st, err := s.Stats(); err == nil && st.Used > 0 {
		fmt.Fprintln(e.stderr)
		writeStats(e.stderr, st, printed)
	}
	if printed > 0 && errors.Is(failed, hexkv.ErrContextFull) {
		return fmt.Errorf("the reply was cut off: the context of %s tokens is full; use a larger -c or limit the reply with -n", human.Count(s.ContextSize()))
	}
	if errors.Is(failed, hexkv.ErrContextFull) {
		problem, _, _ := strings.Cut(failed.Error(), ";")
		return fmt.Errorf("%s; shorten it or use a larger -c", problem)
	}
	return failed
}

// readPrompt returns the text of -p, and after it that of -f or standard input.
func readPrompt(e *env, cmd *cli.Command) (string, error) {
	prompt, err := promptText(cmd)
	if err != nil {
		return "", err
	}
	more := ""
	switch path := cmd.String("file"); {
	case path != "":
		more, err = readText(e, path)
	case cmd.IsSet("prompt"):
		more, err = piped(e)
	case isTerminal(e.stdin):
		err = usagef("there is no prompt; give one with -p TEXT, -f FILE or on standard input, or use hexrun chat")
	default:
		more, err = readText(e, "-")
	}
	switch {
	case err != nil:
		return "", err
	case prompt == "" && more == "":
		return "", usagef("the prompt is empty; give some text")
	case prompt == "":
		return more, nil
	case more == "":
		return prompt, nil
	}
	return prompt + "\n\n" + more, nil
}

// promptTokens applies the chat template, unless --raw.
func promptTokens(m *hexkv.Model, cmd *cli.Command, prompt string) ([]hexkv.TokenID, error) {
	system := cmd.String("system-prompt")
	if cmd.Bool("raw") {
		if system != "" {
			return nil, usagef("--raw and -sys contradict each other; put the system message into the prompt")
		}
	} else {
		if !m.Info().HasChatTemplate {
			return nil, errors.New("this model has no chat template; add --raw to continue the text itself")
		}
		var messages []hexkv.Message
		if system != "" {
			messages = append(messages, hexkv.Message{Role: hexkv.RoleSystem, Content: system})
		}
		var err error
		if prompt, err = m.ApplyTemplate(append(messages, hexkv.Message{Role: hexkv.RoleUser, Content: prompt}), true); err != nil {
			return nil, err
		}
	}
	return m.Tokenize(prompt, hexkv.TokenizeOptions{AddSpecial: true, ParseSpecial: true})
}
