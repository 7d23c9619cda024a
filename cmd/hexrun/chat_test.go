package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestChatOverPipes(t *testing.T) {
	needModel(t)
	notes := temp(t, "notes.txt", "The secret word is banana.\n")
	in := []string{
		"Say hello.",
		"/context",
		`"""`, "/regen is a word here.", `Say it."""`,
		"/regen",
		"",
		"/read " + notes,
		"What is the secret word?",
		"/stats",
		"/help",
		"/clear",
		"/context",
		"/bye",
		"never seen",
	}
	out, stderr, code := hexrun(t, strings.Join(in, "\n"), "chat", "--temp", "0", "-n", "6", "-c", "1024", "-sys", "Be brief.")
	require.Equal(t, exitOK, code, stderr)
	replies := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	require.GreaterOrEqual(t, len(replies), 4, out)
	assert.NotContains(t, out+stderr, ">>>", "no prompts on a pipe")
	assert.Contains(t, stderr, " of 1,024 tokens, 3 messages]")
	assert.Contains(t, stderr, "[26 characters of "+notes+" go before your next message]")
	assert.Contains(t, stderr, "/regen      drop the last reply")
	assert.Contains(t, stderr, "[cleared]\n[0 of 1,024 tokens, 1 messages]")
	assert.Equal(t, 2, strings.Count(stderr, "bits per element"), "/stats and at the end")
}

func TestChatFailures(t *testing.T) {
	needModel(t)
	in := strings.Join([]string{"/nonsense", "/read", "/read /no/such/file", "/regen", "bad \xff", strings.Repeat("long ", 400), "Hi.", `"""open`, "block"}, "\n")
	out, stderr, code := hexrun(t, in, "chat", "--temp", "0", "-n", "3", "-c", "256")
	assert.Equal(t, exitError, code)
	assert.NotEmpty(t, out)
	for _, want := range []string{"/nonsense is no command", "/read needs the name", "/no/such/file does not exist", "there is no message to answer yet",
		"not valid UTF-8", "context of 256; /clear starts a new conversation, a larger -c holds more", "hexrun: 6 of the messages and commands failed"} {
		assert.Contains(t, stderr, want)
	}
}

// -p is the first message, never a command; the input goes on from there.
func TestChatFirstMessage(t *testing.T) {
	needModel(t)
	out, stderr, code := hexrun(t, "/context\nAnd in French?\n/context\n", "chat", "-cnv", "--temp", "0", "-n", "4", "-c", "512", "-e", "-p", `/help\nSay hello.`)
	require.Equal(t, exitOK, code, stderr)
	assert.NotEmpty(t, out)
	assert.NotContains(t, stderr, "Commands:")
	assert.Contains(t, stderr, " of 512 tokens, 2 messages]")
	assert.Contains(t, stderr, " of 512 tokens, 4 messages]")
}

// A file that does not fit is dropped, so that the messages after it get replies.
func TestChatDropsLongFile(t *testing.T) {
	needModel(t)
	long := temp(t, "long.txt", strings.Repeat("word ", 400))
	out, stderr, code := hexrun(t, "/read "+long+"\nSum it up.\nHi.\n/context\n", "chat", "--temp", "0", "-n", "3", "-c", "256")
	assert.Equal(t, exitError, code)
	assert.NotEmpty(t, out)
	assert.Contains(t, stderr, "no room for a reply in a context of 256; the file of /read was dropped: read a shorter one, or start again with /clear or a larger -c\n")
	assert.Contains(t, stderr, " of 256 tokens, 2 messages]")
	assert.Contains(t, stderr, "hexrun: 1 of the messages and commands failed")
}

// Ctrl-C stops a reply, keeps the conversation, and leaves when no reply runs.
func TestChatInterrupted(t *testing.T) {
	needModel(t)
	c := command("chat", "--temp", "0", "-c", "2048")
	in, err := c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	errs, err := c.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	ask := func(s string) { io.WriteString(in, s+"\n") }
	interrupt := func() { c.Process.Signal(os.Interrupt) }

	ask("Count from one to one thousand, in words.")
	go watch(out, " ", interrupt) // the reply has begun
	log := ""
	buf := make([]byte, 4096)
	for stage := 0; ; {
		n, err := errs.Read(buf)
		log += string(buf[:n])
		switch {
		case stage == 0 && strings.Contains(log, "[stopped; /regen tries again]"):
			stage++
			ask("/context")
		case stage == 1 && strings.Contains(log, " of 2,048 tokens, 2 messages]"):
			stage++
			interrupt()
		}
		if err != nil {
			break
		}
	}
	assert.Equal(t, exitInterrupted, wait(t, c), log)
	assert.Contains(t, log, "2 messages]", "the reply is kept as far as it came")
}
