/* Sends a picture at each tick: of /dev/video0, or of the device in $CAMERA; without one, a test
   picture. */

#include <dora/node_api.h>

#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct camera {
    int device; /* -1 without one */
    uint32_t width, height;
};

/* Open a device that can be read() in YUYV. */
static struct camera open_camera(void *context)
{
    const char *path = getenv("CAMERA") ? getenv("CAMERA") : "/dev/video0";
    struct camera camera = {open(path, O_RDWR | O_CLOEXEC), 320, 240};
    struct v4l2_capability can = {0};
    struct v4l2_format format = {.type = V4L2_BUF_TYPE_VIDEO_CAPTURE};
    format.fmt.pix = (struct v4l2_pix_format){
        .width = camera.width, .height = camera.height, .pixelformat = V4L2_PIX_FMT_YUYV};
    char text[200];
    if (camera.device >= 0 && ioctl(camera.device, VIDIOC_QUERYCAP, &can) == 0 &&
        can.device_caps & V4L2_CAP_READWRITE &&
        ioctl(camera.device, VIDIOC_S_FMT, &format) == 0 &&
        format.fmt.pix.pixelformat == V4L2_PIX_FMT_YUYV) {
        camera.width = format.fmt.pix.width;
        camera.height = format.fmt.pix.height;
        return camera;
    }
    if (camera.device >= 0)
        close(camera.device);
    camera.device = -1;
    snprintf(text, sizeof text, "%s gives no pictures: sending a test picture", path);
    dora_log(context, "info", 4, text, strlen(text));
    return camera;
}

/* Take a picture of two bytes for each pixel; false if none came. */
static bool take_picture(const struct camera *camera, unsigned char *into, int number)
{
    size_t size = (size_t)camera->width * camera->height * 2;
    if (camera->device >= 0)
        return read(camera->device, into, size) == (ssize_t)size;
    for (size_t at = 0; at < size; at += 2) {
        into[at] = (unsigned char)(at / 2 % camera->width + (size_t)number); /* brightness */
        into[at + 1] = 128;                                                   /* no color */
    }
    return true;
}

int main(void)
{
    void *context = init_dora_context_from_env(), *event;
    if (context == NULL)
        return 1; /* the reason was printed */
    struct camera camera = open_camera(context);
    size_t size = (size_t)camera.width * camera.height * 2;
    DoraMetadata *metadata = dora_metadata_new();
    dora_metadata_set_int(metadata, "width", camera.width);
    dora_metadata_set_int(metadata, "height", camera.height);
    dora_metadata_set_string(metadata, "encoding", "yuyv");
    int number = 0;
    while ((event = dora_next_event(context)) != NULL) {
        if (read_dora_event_type(event) == DoraEventType_Input) {
            /* The picture is born in shared memory, and never copied. */
            unsigned char *picture = dora_alloc_output(context, size);
            if (picture != NULL && take_picture(&camera, picture, number++))
                dora_send_buffer(context, "image", picture, size, metadata);
            else if (picture != NULL)
                dora_free_output(context, picture);
        }
        free_dora_event(event);
    }
    dora_metadata_free(metadata);
    free_dora_context(context);
    return 0;
}
