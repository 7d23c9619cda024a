package main

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

// measureName is the hidden command that measures one cache: a job comes in on standard input as JSON, events go out on
// standard output, one JSON object per line; the last one has the row or the error.
const measureName = "measure-one"

// job says what to measure.
type job struct {
	Cache     string
	Model     string
	GPULayers int
	NoMmap    bool
	Text      string
	Tokens    int // of text and of context; 0 = as trained
	Batch     int
	UBatch    int // of the speed pass
	Step      int // ubatch of the quality pass
	Threads   int
	Verbose   bool
}

// event is progress, a note, the row or an error.
type event struct {
	Step  string      `json:",omitempty"` // what is being done, and how far it is
	Done  float64     `json:",omitempty"` // share of the job
	Note  string      `json:",omitempty"` // for the user
	Row   *report.Row `json:",omitempty"`
	Error *jobError   `json:",omitempty"`
}

// jobError is an error that crosses a process boundary with its code.
type jobError struct {
	Code hexkv.Code
	Text string
}

// newJobError keeps the code of a hexkv error; a usage error gets CodeConfig, others 0.
func newJobError(err error) *jobError {
	e := &jobError{Text: err.Error()}
	var h *hexkv.Error
	var usage *usageError
	switch {
	case errors.As(err, &h):
		e.Code = h.Code
	case errors.As(err, &usage):
		e.Code = hexkv.CodeConfig
	}
	return e
}

// restore makes an error of it again.
func (e *jobError) restore(cache string) error {
	text := cache + ": " + e.Text
	if e.Code == 0 {
		return errors.New(text)
	}
	return &hexkv.Error{Code: e.Code, Op: "compare", Text: text}
}

// sender writes events.
type sender struct{ enc *json.Encoder }

func newSender(w io.Writer) sender { return sender{json.NewEncoder(w)} }

func (s sender) send(ev event) { s.enc.Encode(ev) } // a parent that went away sends SIGPIPE or SIGINT
