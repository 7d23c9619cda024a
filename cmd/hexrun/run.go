package main

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

func runCommand(e *env) *cli.Command {
	flags := append(modelFlags(), contextFlags(4096)...)
	flags = append(flags, cacheFlags()...)
	flags = append(flags, samplingFlags()...)
	flags = append(flags,
		text(aboutPrompt, "prompt p", "", "TEXT|the prompt"),
		text(aboutPrompt, "file f", "", "FILE|a file with the prompt; - is standard input, which is also read without -p and -f"),
		systemFlag(),
		&cli.BoolFlag{Name: "raw", Category: aboutPrompt, Usage: "continue the text itself, without the model's chat template"},
	)
	return &cli.Command{
		Name:   "run",
		Usage:  "answer one prompt",
		Flags:  flags,
		Action: action(e, func(ctx context.Context, cmd *cli.Command) error { return answer(ctx, e, cmd) }),
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
		return fmt.Errorf("the reply was cut off: the context of %d tokens is full; use a larger -c or limit the reply with -n", s.ContextSize())
	}
	return failed
}

// readPrompt returns the text of -p, -f or standard input.
func readPrompt(e *env, cmd *cli.Command) (string, error) {
	prompt, path := cmd.String("prompt"), cmd.String("file")
	switch {
	case cmd.IsSet("prompt") && path != "":
		return "", usagef("-p and -f contradict each other; give one of them")
	case cmd.IsSet("prompt"):
		if !utf8.ValidString(prompt) {
			return "", errors.New("the prompt is not valid UTF-8; convert it to UTF-8")
		}
	case path == "" && isTerminal(e.stdin):
		return "", usagef("there is no prompt; give one with -p TEXT, -f FILE or on standard input, or use hexrun chat")
	default:
		if path == "" {
			path = "-"
		}
		var err error
		if prompt, err = readText(e, path); err != nil {
			return "", err
		}
	}
	if prompt == "" {
		return "", usagef("the prompt is empty; give some text")
	}
	return prompt, nil
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
