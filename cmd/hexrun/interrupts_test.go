package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestInterrupts(t *testing.T) {
	var left []int
	restored := 0
	i := newInterrupts(func(code int) { left = append(left, code) })
	i.onExit(func() { restored++ })

	ctx, done := i.task(context.Background())
	i.signal()
	assert.Error(t, ctx.Err(), "the first one cancels")
	assert.Empty(t, left)
	i.signal()
	assert.Equal(t, []int{exitInterrupted}, left, "the second one leaves while the task still stops")
	assert.Equal(t, 1, restored)
	done()

	ctx, done = i.task(context.Background())
	i.idle()
	i.signal()
	assert.NoError(t, ctx.Err())
	assert.Len(t, left, 2, "an idle program leaves at once")
	done()
	assert.Error(t, ctx.Err())
	i.onExit(nil)
	i.signal()
	assert.Len(t, left, 3)
	assert.Equal(t, 2, restored)
}
