package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/prompt"
	"github.com/hexkv/hexkv/hexkv"
)

func chatCommand(e *env) *cli.Command {
	flags := append(modelFlags(), contextFlags(4096)...)
	flags = append(append(flags, offloadFlag()), cacheFlags()...)
	flags = append(flags, samplingFlags()...)
	flags = append(flags, promptFlags("the first message")...)
	flags = append(flags, &cli.BoolFlag{Name: "conversation", Aliases: []string{"cnv"}, Category: aboutPrompt,
		Usage: "no effect: chat is a conversation"})
	return &cli.Command{
		Name:  "chat",
		Usage: "talk to the model",
		Description: "Lines are messages; a block between \"\"\" and \"\"\" is one message of several lines.\n" +
			"Ctrl-C stops a reply and keeps what came; while no reply runs, or when pressed again, it leaves.\n" +
			"Without --hex the cache is the stock f16 one.\n\n" + chatHelp,
		Flags:  flags,
		Action: action(e, func(ctx context.Context, cmd *cli.Command) error { return startChat(ctx, e, cmd) }),
	}
}

// startChat loads the model and talks until the input ends.
func startChat(ctx context.Context, e *env, cmd *cli.Command) error {
	opts, err := sessionOptions(cmd)
	if err != nil {
		return err
	}
	talk := &hexkv.ChatOptions{System: cmd.String("system-prompt")}
	if talk.Sampling, err = sampling(e, cmd); err != nil {
		return err
	}
	if talk.MaxTokens, err = maxTokens(cmd); err != nil {
		return err
	}
	first, err := promptText(cmd)
	if err != nil {
		return err
	}
	m, err := openModel(ctx, e, cmd)
	if err != nil {
		return err
	}
	defer m.Close()
	if !m.Info().HasChatTemplate {
		return errors.New("this model has no chat template; use hexrun run --raw to continue a text")
	}
	s, err := openSession(ctx, e, m, opts)
	if err != nil {
		return err
	}
	defer s.Close()

	t := &talker{e: e, chat: hexkv.NewChat(s, talk), session: s}
	if in, ok := e.stdin.(*os.File); ok && isTerminal(in) {
		t.interactive = true
		t.in = prompt.NewTerminal(in, e.stderr, e.interrupts.onExit)
		st, err := s.Stats()
		if err != nil {
			return err
		}
		e.note("%s, %s tokens of context, cache %s: %s\n/help lists the commands",
			m.Info().Description, human.Count(st.ContextSize), opts.Cache, cacheLine(st))
	} else {
		t.in = prompt.NewPlain(e.stdin)
	}
	return t.loop(first)
}

// talker is a running conversation.
type talker struct {
	e           *env
	in          prompt.Reader
	interactive bool
	chat        *hexkv.Chat
	session     *hexkv.Session
	attached    string // what /read read, for the next message
	replied     int    // tokens of all replies
	failures    int    // of messages and commands
}

// loop sends the first message, if there is one, then reads messages and commands until the end of the input. Without
// a terminal, their failures are one at the end.
func (t *talker) loop(first string) error {
	t.e.interrupts.idle()
	t.message(first, true)
	var block prompt.Block
	for {
		p := prompt.First
		if block.Open() {
			p = prompt.More
		}
		line, err := t.in.Line(p)
		message, quoted, complete := "", true, false
		switch {
		case errors.Is(err, prompt.ErrInterrupted) && block.Open():
			block.Drop()
			t.e.note("")
			continue
		case errors.Is(err, prompt.ErrInterrupted):
			t.e.note("")
			return context.Canceled
		case err == io.EOF:
			if t.interactive {
				t.e.note("")
			} else if message, complete = block.End(); complete {
				t.message(message, quoted)
			}
			return t.end()
		case err != nil:
			return fmt.Errorf("standard input cannot be read (%w); try again", err)
		}
		if message, quoted, complete = block.Add(line); complete && t.message(message, quoted) {
			return t.end()
		}
	}
}

// end prints statistics when the conversation is over.
func (t *talker) end() error {
	t.stats()
	if t.interactive || t.failures == 0 {
		return nil
	}
	return fmt.Errorf("%d of the messages and commands failed; the lines above say why", t.failures)
}

// message handles a complete message or command, and reports whether the conversation is over.
func (t *talker) message(text string, quoted bool) (over bool) {
	if name, argument, ok := prompt.Command(text); ok && !quoted {
		return t.command(name, argument)
	}
	if text == "" && t.attached == "" {
		return false
	}
	if !utf8.ValidString(text) {
		t.fail(errors.New("the message is not valid UTF-8; convert it to UTF-8"))
		return false
	}
	if t.attached != "" {
		text = t.attached + "\n\n" + text
	}
	remedy := whenFull
	if t.attached != "" {
		remedy = "the file of /read was dropped: read a shorter one, or start again with /clear or a larger -c"
	}
	came, err := t.reply(remedy, func(ctx context.Context) iter.Seq2[hexkv.Token, error] { return t.chat.Send(ctx, text) })
	if came || errors.Is(err, hexkv.ErrContextFull) { // a file that does not fit must not block what follows
		t.attached = ""
	}
	return false
}

// reply prints a reply as it comes, and reports whether any of it came. Ctrl-C stops it. remedy is for a conversation
// that does not fit.
func (t *talker) reply(remedy string, start func(context.Context) iter.Seq2[hexkv.Token, error]) (came bool, failed error) {
	before, _ := t.session.Stats()
	count := t.replied
	ctx, done := t.e.interrupts.task(context.Background())
	defer done()
	for token, err := range start(ctx) {
		if failed = err; err == nil {
			fmt.Fprint(t.e.stdout, token.Text)
			came = true
			t.replied++
		}
	}
	came = came || failed == nil
	if came {
		fmt.Fprintln(t.e.stdout)
	}
	switch {
	case ctx.Err() != nil:
		t.e.note("[stopped; /regen tries again]")
	case came && errors.Is(failed, hexkv.ErrContextFull):
		t.fail(errors.New("the reply was cut off: the context is full; " + whenFull))
	case errors.Is(failed, hexkv.ErrContextFull):
		problem, _, _ := strings.Cut(failed.Error(), ";")
		t.fail(fmt.Errorf("%s; %s", problem, remedy))
	case failed != nil:
		t.fail(failed)
	}
	computed := came || ctx.Err() != nil
	if after, err := t.session.Stats(); err == nil && t.interactive && computed {
		t.speed(before, after, t.replied-count)
	}
	return came, failed
}

// speed prints one line about the last reply.
func (t *talker) speed(before, after hexkv.Stats, replied int) {
	after.PrefillTokens -= before.PrefillTokens
	after.PrefillTime -= before.PrefillTime
	after.DecodeTokens -= before.DecodeTokens
	after.DecodeTime -= before.DecodeTime
	reused, _ := t.chat.Reused()
	t.e.note("[%s tokens of prompt at %s/s, %s reused; %s of reply at %s/s; %s of %s in use]",
		human.Count(after.PrefillTokens), human.Rate(after.PrefillRate()), human.Count(reused),
		human.Count(replied), human.Rate(after.DecodeRate()), human.Count(after.Used), human.Count(after.ContextSize))
}

// fail tells the user what went wrong; the conversation goes on.
func (t *talker) fail(err error) {
	t.failures++
	t.e.note("hexrun: %s", err)
}
