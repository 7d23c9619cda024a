package main

import (
	"context"
	"errors"
	"iter"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/hexkv"
)

const chatHelp = `Commands:
  /clear      forget the conversation, but not the system message
  /regen      drop the last reply and give another one
  /read FILE  put a text file before the next message
  /context    say how full the context is
  /stats      print speed, and bytes of the cache by tier
  /help       print this
  /bye        leave`

// whenFull is what helps when a conversation fills its context.
const whenFull = "/clear starts a new conversation, a larger -c holds more"

// command runs a command, and reports whether the conversation is over.
func (t *talker) command(name, argument string) (over bool) {
	switch name {
	case "/bye", "/exit", "/quit":
		return true
	case "/help", "/?":
		t.e.note("%s\n\n\"\"\" begins and ends a message of several lines; Ctrl-C stops a reply.", chatHelp)
	case "/clear":
		t.chat.Clear()
		t.attached = ""
		if err := t.session.Clear(); err != nil {
			t.fail(err)
			break
		}
		t.e.note("[cleared]")
	case "/regen":
		t.reply(whenFull, func(ctx context.Context) iter.Seq2[hexkv.Token, error] { return t.chat.Regenerate(ctx) })
	case "/read":
		t.read(argument)
	case "/context":
		t.e.note("[%s of %s tokens, %d messages]", human.Count(t.session.Len()), human.Count(t.session.ContextSize()), len(t.chat.Messages()))
	case "/stats":
		t.stats()
	default:
		t.fail(errors.New(name + " is no command; /help lists them, and a message that starts so goes between \"\"\" and \"\"\""))
	}
	return false
}

// read keeps a file for the next message.
func (t *talker) read(path string) {
	if path == "" || path == "-" {
		t.fail(errors.New("/read needs the name of a text file; for example: /read notes.txt"))
		return
	}
	text, err := readText(t.e, path)
	if err != nil {
		t.fail(err)
		return
	}
	if t.attached != "" {
		t.attached += "\n\n"
	}
	t.attached += text
	t.e.note("[%s characters of %s go before your next message]", human.Count(len([]rune(text))), path)
}

// stats prints what the session holds and did.
func (t *talker) stats() {
	st, err := t.session.Stats()
	if err != nil {
		t.fail(err)
		return
	}
	writeStats(t.e.stderr, st, t.replied)
}
