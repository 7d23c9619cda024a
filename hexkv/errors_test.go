package hexkv

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/hexkv/hexkv/binding"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestErrorMapping(t *testing.T) {
	assert.NoError(t, statusError("op", binding.Status{}))
	named := []error{nil, ErrInternal, ErrInvalid, ErrInvalidConfig, ErrNotFound, ErrNotGGUF, ErrTruncated, ErrModel, ErrMemory,
		ErrContextFull, ErrCancelled, ErrInvalidUTF8, ErrTemplate, ErrGrammar, ErrNoLogits, ErrUnsupported}
	for code := 1; code < len(named); code++ {
		err := fmt.Errorf("wrapped: %w", statusError("Session.Decode", binding.Status{Code: code, Text: "what happened"}))
		for other, target := range named[1:] {
			assert.Equal(t, other+1 == code, errors.Is(err, target), "status %d and %v", code, target)
		}
		var e *Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, Code(code), e.Code)
		assert.Equal(t, "Session.Decode", e.Op)
		assert.Equal(t, "what happened", e.Error())
	}
	assert.NotEmpty(t, statusError("op", binding.Status{Code: 3}).Error(), "a call without error text")
}

func TestCancelledError(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := cancelled(ctx, "op", "cancelled after 3 tokens")
	assert.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, ErrCancelled)
	assert.NotErrorIs(t, err, context.DeadlineExceeded)

	ctx, cancel = context.WithTimeout(context.Background(), 0)
	defer cancel()
	<-ctx.Done()
	err = cancelled(ctx, "op", "")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Contains(t, err.Error(), "deadline")
}
