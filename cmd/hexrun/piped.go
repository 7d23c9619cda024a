package main

import (
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
)

// patience is how long -p waits for the first bytes of a pipe. Scripts often inherit one that nobody writes or closes.
const patience = time.Second

// piped returns what follows -p on standard input: all of a file, or of a pipe that has data or an end. Anything else,
// such as /dev/null, a terminal or a socket, is left alone.
func piped(e *env) (string, error) {
	in, ok := e.stdin.(*os.File)
	if !ok {
		return "", nil
	}
	info, err := in.Stat()
	if err != nil { // closed
		return "", nil
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
	case mode&fs.ModeNamedPipe == 0:
		return "", nil
	case !ready(in, patience):
		e.note("note: standard input is a pipe without data, so it is not read; add -f - to wait for it, or < /dev/null")
		return "", nil
	}
	text, err := readText(e, "-")
	if err == nil && text != "" {
		e.note("note: %s characters of standard input follow the prompt; add < /dev/null to leave it alone", human.Count(len([]rune(text))))
	}
	return text, err
}

// ready waits until a read would not block, with data or at the end.
func ready(in *os.File, wait time.Duration) bool {
	end := time.Now().Add(wait)
	for {
		fds := []unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(end).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		return err == nil && n > 0
	}
}
