package hexkv

import (
	"context"
	"fmt"

	"github.com/hexkv/hexkv/binding"
)

// Code says what kind of failure an [Error] is. The values are those of hexkv_status in csrc/hexkv.h.
type Code int

// Failures that C reports.
const (
	CodeInternal    Code = 1 + iota // llama.cpp failed; the text has its last error lines
	CodeInvalid                     // bad argument
	CodeConfig                      // bad or contradictory settings
	CodeNotFound                    // no such file
	CodeNotGGUF                     // directory, empty file, other format
	CodeTruncated                   // a GGUF file without its end
	CodeModel                       // a whole GGUF that llama.cpp cannot run
	CodeMemory                      // does not fit in memory
	CodeContextFull                 // does not fit in the context
	CodeCancelled                   // the context of the call was cancelled
	CodeUTF8                        // text is not valid UTF-8
	CodeTemplate                    // no chat template, or it refuses the messages
	CodeGrammar                     // bad grammar, or a token outside it
	CodeNoLogits                    // the last decode kept no logits for that row
	CodeUnsupported                 // not in this build, or not for this model
)

// Failures that only the Go side has.
const (
	CodeClosed Code = 101 // used after Close
	CodeBusy   Code = 102 // a Session used by two goroutines at once
)

// Error is the type of all failures of this package.
type Error struct {
	Code Code
	Op   string // the method that failed, such as "Session.Decode"; empty in the named errors
	Text string // one sentence: what is wrong and what to do
	Err  error  // the cause, such as context.Canceled; may be nil
}

// Error returns the text, which stands on its own.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the named error of e's code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Op == "" && t.Code == e.Code
}

// The named errors, for errors.Is. A cancelled call also matches context.Canceled or context.DeadlineExceeded.
var (
	ErrInternal      error = &Error{Code: CodeInternal, Text: "internal error"}
	ErrInvalid       error = &Error{Code: CodeInvalid, Text: "invalid argument"}
	ErrInvalidConfig error = &Error{Code: CodeConfig, Text: "invalid configuration"}
	ErrNotFound      error = &Error{Code: CodeNotFound, Text: "no such file"} // also matches fs.ErrNotExist
	ErrNotGGUF       error = &Error{Code: CodeNotGGUF, Text: "not a GGUF file"}
	ErrTruncated     error = &Error{Code: CodeTruncated, Text: "truncated GGUF file"}
	ErrModel         error = &Error{Code: CodeModel, Text: "model cannot be run"}
	ErrMemory        error = &Error{Code: CodeMemory, Text: "not enough memory"}
	ErrContextFull   error = &Error{Code: CodeContextFull, Text: "context is full"}
	ErrCancelled     error = &Error{Code: CodeCancelled, Text: "cancelled"}
	ErrInvalidUTF8   error = &Error{Code: CodeUTF8, Text: "invalid UTF-8"}
	ErrTemplate      error = &Error{Code: CodeTemplate, Text: "chat template failed"}
	ErrGrammar       error = &Error{Code: CodeGrammar, Text: "grammar failed"}
	ErrNoLogits      error = &Error{Code: CodeNoLogits, Text: "no logits"}
	ErrUnsupported   error = &Error{Code: CodeUnsupported, Text: "not supported"}
	ErrClosed        error = &Error{Code: CodeClosed, Text: "closed"}
	ErrBusy          error = &Error{Code: CodeBusy, Text: "session in use by another goroutine"}
)

// errorf returns an error of the Go side.
func errorf(op string, code Code, format string, args ...any) error {
	return &Error{Code: code, Op: op, Text: fmt.Sprintf(format, args...)}
}

// statusError turns a status of the C side into an error, nil for success.
func statusError(op string, s binding.Status) error {
	if s.OK() {
		return nil
	}
	e := &Error{Code: Code(s.Code), Op: op, Text: s.Text}
	if e.Text == "" {
		e.Text = fmt.Sprintf("%s failed with status %d", op, s.Code)
	}
	return e
}

// cancelled returns the error of a call that ctx ended; text says how far it came.
func cancelled(ctx context.Context, op, text string) error {
	err := ctx.Err()
	if text == "" {
		text = "cancelled"
	}
	if err == context.DeadlineExceeded {
		text += ": the deadline has passed"
	}
	return &Error{Code: CodeCancelled, Op: op, Text: text, Err: err}
}

func closedError(op, what string) error {
	return errorf(op, CodeClosed, "the %s is closed; open a new one", what)
}
